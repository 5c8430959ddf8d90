"""JSON from outside, parsed with a bound on its depth: one intake for every door."""

from typing import Any

import orjson

from gateway.errors import InvalidJSON

# A message with tool calls and content blocks has about ten levels, a large tool schema some more. Recursive walks in
# the libraries behind the doors, and in engines, fail at several hundred.
MAX_DEPTH = 64


def parse(data: bytes, what: str = "request body", param: str | None = None) -> Any:
    """The value in `data`, which is called `what` in the error.

    Raises:
        InvalidJSON: it is not JSON, or nested deeper than MAX_DEPTH.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"The {what} is not valid JSON: {error}.", param=param) from error
    # So few brackets can't be nested deeper; counting them is cheap, walking is not.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise InvalidJSON(f"The {what} is nested deeper than {MAX_DEPTH} levels.", param=param)
    return value


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
