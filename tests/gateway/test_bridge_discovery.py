"""Finding chains and skills in a folder."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gateway.bridge.discovery import LoadError, discover

Package = Callable[..., ModuleType]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files: str) -> ModuleType:
        folder = tmp_path / "offered"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, source in files.items():
            (folder / f"{name}.py").write_text(source)
        return importlib.import_module("offered")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "offered"]:
        del sys.modules[name]


def test_every_public_module_with_build_is_one(package: Package) -> None:
    build = '"""Does it.\n\nMore."""\ndef build(x):\n    return x + 1\n'
    found = list(discover(package(second=build, first=build, shared="x = 1", _private="raise SystemError")))
    assert [(plugin.name, plugin.description) for plugin in found] == [("first", "Does it."), ("second", "Does it.")]
    assert found[0].build(1) == 2


@pytest.mark.parametrize("source", ["import nothing_of_that_name", "def build(:", "1 / 0"])
def test_a_module_that_does_not_import_stops_the_start(package: Package, source: str) -> None:
    with pytest.raises(LoadError, match=r"offered/broken\.py: \w+Error"):
        list(discover(package(broken=source)))


def test_a_build_that_fails_stops_the_start(package: Package) -> None:
    (plugin,) = discover(package(broken="def build():\n    raise ValueError('no model')"))
    with pytest.raises(LoadError, match=r"offered/broken\.py: build\(\) failed: ValueError: no model"):
        plugin.build()
