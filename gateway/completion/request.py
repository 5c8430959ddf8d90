"""A completion request, validated: the call that its body becomes."""

from collections.abc import Iterator
from typing import Any

import orjson
from pydantic import ValidationError

from gateway import json_body
from gateway.completion.endpoint import Endpoint
from gateway.errors import InvalidField

# Of English, by the rule of thumb.
_CHARACTERS_PER_TOKEN = 4
_USUAL_ANSWER_TOKENS = 512


class Call:
    """One validated request for a completion; nobody changes it.

    Attributes:
        payload: the request body, parsed.
        body: the same as bytes, forwarded as they came where nothing has to change.
        task, generates: what a model must be able to do for it, and whether it is to say something.
        stream: whether it asks for a stream.
    """

    # Read at every step of the path: slots are what Python reads fastest.
    __slots__ = ("body", "endpoint", "generates", "model", "payload", "stream", "task")

    def __init__(self, endpoint: Endpoint, payload: dict[str, Any], body: bytes) -> None:
        self.endpoint = endpoint
        self.model: str = payload["model"]
        self.payload = payload
        self.body = body
        # The attributes of an enum's members are slow to read.
        self.task, self.generates = endpoint.task, endpoint.streams
        self.stream = self.generates and bool(payload.get("stream"))

    @classmethod
    def parse(cls, endpoint: Endpoint, body: bytes) -> "Call":
        """Raises InvalidJSON or InvalidField, with the field's name in `param`."""
        return cls(endpoint, _validated(endpoint, json_body.parse(body)), body)

    @classmethod
    def of(cls, endpoint: Endpoint, payload: dict[str, Any]) -> "Call":
        """Raises as `parse` does."""
        return cls(endpoint, _validated(endpoint, payload), orjson.dumps(payload))

    @property
    def wants_usage(self) -> bool:
        """Whether the answer is to say what was used: a whole one always, a stream when it was asked to."""
        return not self.stream or bool((self.payload.get("stream_options") or {}).get("include_usage"))

    @property
    def choices(self) -> int:
        """How many answers it asks for."""
        prompt = self.payload.get("prompt") if self.endpoint is Endpoint.COMPLETIONS else None
        prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
        return prompts * (self.payload.get("n") or 1)

    def body_for(self, served_name: str, *, ask_usage: bool, salt: str | None = None) -> bytes:
        """The bytes for an engine that calls the model `served_name`; a stream may be asked what was used.

        Args:
            salt: of the engine's prefix cache; None for one that knows of none.
        """
        if not ask_usage and salt is None and served_name == self.model:
            return self.body
        changes: dict[str, Any] = {}
        if served_name != self.model:
            changes["model"] = served_name
        if ask_usage and not self.wants_usage:
            changes["stream_options"] = {**(self.payload.get("stream_options") or {}), "include_usage": True}
        if salt is not None:
            changes["cache_salt"] = salt
        if not changes:
            return self.body
        if changes.keys().isdisjoint(self.payload):  # everything goes on as it came
            return self.body.rstrip()[:-1] + b"," + orjson.dumps(changes)[1:]
        return orjson.dumps({**self.payload, **changes})

    @property
    def prompt_tokens(self) -> int:
        """About how many the prompt has: those that it gives as ids, and those that its texts may come to."""
        ids = sum(_ids(self.payload[name]) for name in self.endpoint.prompts)
        return ids + sum(len(text) for text in self.prompts()) // _CHARACTERS_PER_TOKEN

    def most_tokens(self, max_model_len: int | None) -> int:
        """About how many the whole may come to; of an answer without a bound, a usual one."""
        if not self.generates:
            return self.prompt_tokens
        asked = self.payload.get("max_completion_tokens") if self.endpoint is Endpoint.CHAT else None
        asked = asked or self.payload.get("max_tokens") or _USUAL_ANSWER_TOKENS
        answer = min(asked, max_model_len or asked) * self.choices
        return self.prompt_tokens + answer

    def prompts(self) -> Iterator[str]:
        """The texts of the prompt."""
        for name in self.endpoint.prompts:
            prompt = self.payload[name]
            for item in (prompt,) if isinstance(prompt, str) else prompt:
                if isinstance(item, str):
                    yield item
                elif isinstance(item, dict):
                    yield from _said(item)


def _ids(prompt: str | list[Any]) -> int:
    """How many tokens it gives by their ids: as a list, or as one for each of several prompts."""
    first = prompt[0] if prompt else None
    if isinstance(first, list):
        return sum(map(len, prompt))
    return len(prompt) if isinstance(first, int) else 0


def _said(message: dict[str, Any]) -> Iterator[str]:
    """The texts of a chat's message."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif content:
        yield from (part["text"] for part in content if part.get("text"))


def _validated(endpoint: Endpoint, payload: Any) -> dict[str, Any]:
    if not isinstance(payload, dict):
        raise InvalidField("The request body must be a JSON object.")
    try:
        endpoint.schema.validator.validate_python(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # Union members appear in the location by type name; the client knows fields and indices only.
        path = [str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
        field = ".".join(path).removesuffix(".str") or "body"
        raise InvalidField(f"Invalid value for '{field}': {first['msg']}.", param=field) from error
    return payload
