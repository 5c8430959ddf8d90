"""Input from outside on its way into LangChain and Semantic Kernel: parsed, and nothing but data.

Refused here, before either library sees it: JSON nested deeper than their recursive walks bear, and LangChain's own
serialization format (`{"lc": 1, "type": "constructor", ...}`), which its loader would turn into objects
(CVE-2025-68664).
"""

from typing import Any

import orjson

from gateway.errors import UnprocessableInput

# A message with tool calls and content blocks has about ten levels; LangChain's recursion fails at several hundred.
MAX_DEPTH = 64


def loads(body: bytes) -> Any:
    """Parses a JSON body.

    Raises:
        UnprocessableInput: not JSON, nested too deeply, or a serialized LangChain object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnprocessableInput(f"The request body is not valid JSON: {error}.") from error
    check(value)
    return value


def check(value: Any) -> None:
    """Raises UnprocessableInput for parsed JSON that is nested too deeply or names an object to construct."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise UnprocessableInput(f"The request body is nested deeper than {MAX_DEPTH} levels.")
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if "lc" in item and "type" in item:
                    raise UnprocessableInput("Serialized LangChain objects are not accepted.")
                children.extend(item.values())
            elif isinstance(item, list):
                children.extend(item)
        level, depth = children, depth + 1
