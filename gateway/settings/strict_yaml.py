"""YAML in which no mapping has a key twice: PyYAML takes the last and drops the first without a word.

gateway/settings/ and backend/ have the same file each; tests/test_contracts.py holds that.
"""

from typing import Any

import yaml

_MERGE = "<<"


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != _MERGE:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"'{key.value}' is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def load(text: str) -> Any:
    """Raises YAMLError or ValueError."""
    return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
