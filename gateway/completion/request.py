"""A completion request, validated: the OpenAI bodies this gateway understands and the call they become.

Only what the gateway itself relies on is checked, strictly; every other field passes through to the engine.
Source: https://platform.openai.com/docs/api-reference
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway import json_body
from gateway.errors import InvalidField

T = TypeVar("T")
# The first wrong item is told, not each of a million.
Many = Annotated[list[T], Field(fail_fast=True)]
Texts = str | Many[str] | Many[int] | Many[Many[int]]

# vLLM's own default bound; without one, a short request is answered with gigabytes.
_MAX_LOGPROBS = 20


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    model: str = Field(min_length=1, description="A model name, as listed by `/v1/models`.")


class ContentPart(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None


class Message(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    role: str = Field(min_length=1)
    content: str | Many[ContentPart] | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = None


class _Generation(_Body):
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = None
    stop: str | Many[str] | None = None


class ChatCompletionRequest(_Generation):
    messages: Many[Message] = Field(min_length=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=_MAX_LOGPROBS)
    max_completion_tokens: int | None = Field(default=None, ge=0)


class CompletionRequest(_Generation):
    prompt: Texts
    logprobs: int | None = Field(default=None, ge=0, le=_MAX_LOGPROBS)


class EmbeddingRequest(_Body):
    input: Texts = Field(min_length=1)


class Endpoint(StrEnum):
    """The completion endpoints; the value is the path, here and on every engine."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"

    @property
    def task(self) -> str:
        return _TASKS[self]

    @property
    def schema(self) -> type[BaseModel]:
        return _SCHEMAS[self]


_TASKS = {Endpoint.CHAT: "chat", Endpoint.COMPLETIONS: "completions", Endpoint.EMBEDDINGS: "embeddings"}
_SCHEMAS: dict[Endpoint, type[BaseModel]] = {
    Endpoint.CHAT: ChatCompletionRequest,
    Endpoint.COMPLETIONS: CompletionRequest,
    Endpoint.EMBEDDINGS: EmbeddingRequest,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One validated request for a completion.

    Attributes:
        payload: the request body, parsed.
        body: the same as bytes, forwarded as they came where nothing has to change.
    """

    endpoint: Endpoint
    payload: dict[str, Any]
    body: bytes

    @classmethod
    def parse(cls, endpoint: Endpoint, body: bytes) -> "Call":
        """Raises InvalidJSON or InvalidField, with the field's name in `param`."""
        payload = json_body.parse(body)
        return cls(endpoint, _validated(endpoint, payload), body)

    @classmethod
    def of(cls, endpoint: Endpoint, payload: dict[str, Any]) -> "Call":
        return cls(endpoint, _validated(endpoint, payload), orjson.dumps(payload))

    @property
    def model(self) -> str:
        return str(self.payload["model"])

    @property
    def stream(self) -> bool:
        return self.endpoint is not Endpoint.EMBEDDINGS and bool(self.payload.get("stream"))

    @property
    def choices(self) -> int:
        """How many answers it asks for."""
        prompt = self.payload.get("prompt") if self.endpoint is Endpoint.COMPLETIONS else None
        prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
        return prompts * (self.payload.get("n") or 1)

    def body_for(self, served_name: str) -> bytes:
        """The bytes for an engine that calls the model `served_name`."""
        return self.body if served_name == self.model else orjson.dumps({**self.payload, "model": served_name})

    def prompts(self) -> Iterator[str]:
        """The texts of the prompt."""
        for message in self.payload.get("messages", ()):
            content = message.get("content")
            if isinstance(content, str):
                yield content
            elif content:
                yield from (part["text"] for part in content if part.get("text"))
        prompt = self.payload.get("prompt", self.payload.get("input"))
        if isinstance(prompt, str):
            yield prompt
        elif prompt:
            yield from (text for text in prompt if isinstance(text, str))


def _validated(endpoint: Endpoint, payload: Any) -> dict[str, Any]:
    if not isinstance(payload, dict):
        raise InvalidField("The request body must be a JSON object.")
    try:
        endpoint.schema.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # Union members appear in the location by type name; the client knows fields and indices only.
        path = [str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
        field = ".".join(path).removesuffix(".str") or "body"
        raise InvalidField(f"Invalid value for '{field}': {first['msg']}.", param=field) from error
    return payload
