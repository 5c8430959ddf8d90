"""One file here is one engine: its module has an `ENGINE`, and its file name is what a model's `engine` field says.

Discovery imports every module of this folder whose name does not begin with `_`, but for `base`, the seam itself.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from backend.engines.base import Engine


class EngineLoadError(ImportError):
    """An engine's file cannot be loaded; the message names the file and the reason."""


@cache
def engines() -> dict[str, Engine]:
    """All engines by name.

    Raises:
        EngineLoadError: a module of this folder fails to load or has no ENGINE.
    """
    return discover(__name__, __path__)


def discover(package: str, path: list[str]) -> dict[str, Engine]:
    names = [module.name for module in iter_modules(path) if not module.name.startswith("_") and module.name != "base"]
    return {name: _load(package, path[0], name) for name in names}


def _load(package: str, folder: str, name: str) -> Engine:
    try:
        engine = import_module(f"{package}.{name}").ENGINE
    except Exception as error:
        raise EngineLoadError(f"{folder}/{name}.py: {type(error).__name__}: {error}") from error
    if not isinstance(engine, Engine):
        raise EngineLoadError(f"{folder}/{name}.py: ENGINE is not an Engine")
    return engine
