"""Input from outside on its way into LangChain and Semantic Kernel: nothing but data.

Both load LangChain's own serialization format (`{"lc": 1, "type": "constructor", ...}`) in places, its tracers among
them, and would turn it into objects (CVE-2025-68664); it is refused before either library sees it.
"""

from typing import Any

from gateway import json_body
from gateway.errors import UnprocessableInput


def loads(data: bytes, what: str = "request body", param: str | None = None) -> Any:
    """Parses JSON.

    Raises:
        InvalidJSON: not JSON, or nested too deeply.
        UnprocessableInput: it names an object to construct.
    """
    value = json_body.parse(data, what, param)
    if b'"lc"' in data or b"\\u" in data:  # the name may be written with escapes
        _refuse_objects(value, param)
    return value


def _refuse_objects(value: Any, param: str | None) -> None:
    if isinstance(value, dict):
        if "lc" in value and "type" in value:
            raise UnprocessableInput("Serialized LangChain objects are not accepted.", param=param)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _refuse_objects(item, param)
