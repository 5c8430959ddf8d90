"""What all errors that a client can meet have in common."""

import math
from collections.abc import Mapping
from typing import Any

import orjson


def retry_after(wait_s: float) -> dict[str, str]:
    """The headers that say when to come back."""
    seconds, milliseconds = math.ceil(wait_s), math.ceil(wait_s * 1000)
    return {"retry-after": str(seconds), "retry-after-ms": str(milliseconds), "x-should-retry": "true"}


class GatewayError(Exception):
    """Base of all errors that reach a client.

    Args:
        message: one sentence that says what is wrong and what to do.
        param: the request field at fault, when there is one.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    # What OpenAI's SDK goes by when it tries again: `retry-after-ms`, `retry-after` and `x-should-retry`.
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def payload(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def body(self) -> bytes:
        return orjson.dumps(self.payload())

    def event(self) -> bytes:
        """The error as one server-sent event, for a stream that has already begun."""
        return b"data: " + self.body() + b"\n\n"
