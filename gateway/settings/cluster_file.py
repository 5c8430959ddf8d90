"""The cluster file (YAML), as far as it is the gateway's."""

from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, InitSettingsSource

from gateway.settings import strict_yaml


class ConfigError(Exception):
    """The configuration cannot be used; the message names the place and the remedy."""


class ClusterFile(InitSettingsSource):
    """The cluster file as a settings source."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path | None) -> None:
        super().__init__(settings_cls, init_kwargs=self._read(path) if path else {})

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            document = strict_yaml.load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: a date or number that is none
            raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
        document = {} if document is None else document
        section, models = (
            (document.get("gateway") or {}, document.get("models") or [])
            if isinstance(document, dict)
            else (None, None)
        )
        if not isinstance(section, dict) or not isinstance(models, list):
            raise ConfigError(f"{path}: a mapping with `gateway:` (a mapping) and `models:` (a list) is expected")
        # Several entries may serve one model.
        names = [model.get("served_as") or model.get("name") for model in models if isinstance(model, dict)]
        return {"models": [name for place, name in enumerate(names) if name not in names[:place]], **section}
