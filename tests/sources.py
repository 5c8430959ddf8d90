"""The project's own source files, for the tests that hold its rules."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "chains", "skills", "backend", "chatbot")


@dataclass(frozen=True)
class Source:
    """One Python file; `module` is its dotted name."""

    path: Path
    module: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.path.read_text().splitlines())

    def imports(self) -> Iterator[str]:
        """Dotted names of ours that it imports, wherever the import stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            yield from (name for name in names if name.split(".")[0] in PACKAGES)


def sources(*folders: str) -> list[Source]:
    return [
        Source(path, ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text()))
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
