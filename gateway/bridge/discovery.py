"""Finds what a folder offers: every public module with a `build` function is one chain, or one skill.

Adding one is adding a file. A file that cannot be loaded stops the start: a gateway that silently lacks a chain is
worse than one that does not come up.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gateway.settings import ConfigError


class LoadError(ConfigError):
    """A module of `chains` or `skills` cannot be used; the message names its file and the reason."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One module with a `build` function.

    Attributes:
        name: the module's own name, which becomes a part of the URL.
        description: the first line of its docstring.
        file: where it is, for messages.
    """

    name: str
    description: str
    file: str
    _build: Callable[..., Any]

    def build(self, *args: Any) -> Any:
        try:
            return self._build(*args)
        except Exception as error:
            raise LoadError(f"{self.file}: build() failed: {type(error).__name__}: {error}") from error


def discover(package: ModuleType) -> Iterator[Plugin]:
    """Yields the plugins of `package` by name.

    Raises:
        LoadError: a public module does not import.
    """
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        file = f"{package.__path__[0]}/{info.name}.py"
        try:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
        except Exception as error:
            raise LoadError(f"{file}: {type(error).__name__}: {error}") from error
        if build := getattr(module, "build", None):
            description = (inspect.getdoc(module) or "").partition("\n")[0]
            yield Plugin(info.name, description, module.__file__ or file, build)
