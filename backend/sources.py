"""Where a model's files are: a path, or `package:name/path` for files that a Python package carries."""

from importlib.util import find_spec
from pathlib import Path


class MissingModel(FileNotFoundError):
    """The model's files are not there; the message is one line."""


def locate(source: str) -> Path:
    """The absolute path of a model's file or folder.

    The package is found, not imported: a package that only carries weights may want a runtime that is not installed.

    Raises:
        MissingModel: there is no such package, file or folder.
    """
    if source.startswith("package:"):
        package, _, inner = source.removeprefix("package:").partition("/")
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise MissingModel(f"{source}: the Python package {package!r} is not installed")
        path = Path(spec.submodule_search_locations[0], inner)
    else:
        try:
            path = Path(source).expanduser().absolute()
        except RuntimeError as error:  # `~name`, and nobody has that name
            raise MissingModel(f"{source}: {error}") from error
    if not path.exists():
        raise MissingModel(f"{source}: {path} does not exist")
    return path


def size(path: Path) -> int:
    """Bytes of a model's file, or of all files of its folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
