"""Input from outside on its way into LangChain and Semantic Kernel: nothing but data, and not too much of it.

A validator tells of every wrong item of a list and of every unknown member of an object, at two kilobytes each, so both
are bounded before one sees them, and lists all together. Both libraries load LangChain's own serialization format
(`{"lc": 1, "type": "constructor", ...}`) in places, its tracers among them, and would turn it into objects
(CVE-2025-68664); it is refused before either library sees it.
"""

from typing import Any

from gateway import json_body
from gateway.errors import UnprocessableInput

MAX_ITEMS = 10_000


def loads(data: bytes, what: str = "request body", param: str | None = None) -> Any:
    """Parses JSON.

    Raises:
        InvalidJSON: not JSON, or nested too deeply.
        UnprocessableInput: it holds too much, or names an object to construct.
    """
    value = json_body.parse(data, what, param)
    # The name may be written with escapes. Before each item of a list stands a bracket or a comma.
    if b'"lc"' in data or b"\\u" in data or data.count(b",") + data.count(b"[") >= MAX_ITEMS:
        _check(value, param)
    return value


def _check(value: Any, param: str | None) -> None:
    unseen, items = [value], 0
    while unseen:
        value = unseen.pop()
        if isinstance(value, dict):
            if "lc" in value and "type" in value:
                raise UnprocessableInput("Serialized LangChain objects are not accepted.", param=param)
            if len(value) > MAX_ITEMS:
                raise UnprocessableInput(f"An object has more than {MAX_ITEMS} members.", param=param)
            unseen.extend(value.values())
        elif isinstance(value, list):
            items += len(value)
            if items > MAX_ITEMS:
                raise UnprocessableInput(f"There are more than {MAX_ITEMS} items in lists.", param=param)
            unseen.extend(value)
