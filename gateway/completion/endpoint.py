"""The completion endpoints, and the OpenAI bodies this gateway understands there.

Only what the gateway itself relies on is checked, strictly; every other field passes through to the engine.
Source: https://platform.openai.com/docs/api-reference
"""

from enum import StrEnum
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

T = TypeVar("T")
# The first wrong item is told, not each of a million.
Many = Annotated[list[T], Field(fail_fast=True)]
Texts = str | Many[str] | Many[int] | Many[Many[int]]
Name = Annotated[str, Field(min_length=1, description="A model name, as listed by `/v1/models`.")]
Count = Annotated[int, Field(ge=0)]
# vLLM's own default bound; without one, a short request is answered with gigabytes.
Logprobs = Annotated[int, Field(ge=0, le=20)]

_STRICT = ConfigDict(strict=True)


@with_config(_STRICT)
class ContentPart(TypedDict):
    type: str
    text: NotRequired[str | None]


@with_config(_STRICT)
class Message(TypedDict):
    role: Annotated[str, Field(min_length=1)]
    content: NotRequired[str | Many[ContentPart] | None]


@with_config(_STRICT)
class StreamOptions(TypedDict):
    include_usage: NotRequired[bool | None]


class _Generation(TypedDict):
    model: Name
    stream: NotRequired[bool | None]
    stream_options: NotRequired[StreamOptions | None]
    max_tokens: NotRequired[Count | None]
    max_completion_tokens: NotRequired[Count | None]
    min_tokens: NotRequired[Count | None]
    temperature: NotRequired[Annotated[float, Field(ge=0)] | None]
    top_p: NotRequired[Annotated[float, Field(ge=0, le=1)] | None]
    n: NotRequired[Annotated[int, Field(ge=1, le=128)] | None]
    seed: NotRequired[int | None]
    stop: NotRequired[str | Many[str] | None]
    response_format: NotRequired[dict[str, Any] | None]
    cache_salt: NotRequired[str | None]


@with_config(_STRICT)
class ChatCompletionRequest(_Generation):
    """Chat completion."""

    messages: Annotated[Many[Message], Field(min_length=1)]
    top_logprobs: NotRequired[Logprobs | None]


@with_config(_STRICT)
class CompletionRequest(_Generation):
    """Text completion."""

    prompt: Texts
    logprobs: NotRequired[Logprobs | None]


@with_config(_STRICT)
class EmbeddingRequest(TypedDict):
    """Embeddings."""

    model: Name
    input: Annotated[Texts, Field(min_length=1)]


@with_config(_STRICT)
class ScoreRequest(TypedDict):
    """How well two texts, or one and each of several, go together; vLLM's form."""

    model: Name
    text_1: str | Many[str]
    text_2: str | Many[str]


@with_config(_STRICT)
class RerankRequest(TypedDict):
    """Documents in the order of their relevance to a query; Cohere's and Jina's form."""

    model: Name
    query: str
    documents: Annotated[Many[str], Field(min_length=1)]
    top_n: NotRequired[Count | None]


class Endpoint(StrEnum):
    """The completion endpoints; the value is the path, here and on every engine.

    Attributes:
        task: what a model must be able to do for it.
        prompts: the fields of the body that fill the model's context.
        prompt: the one of them to shorten where it is too long.
        schema: what its body must be; a dict is checked in a quarter of the time that building a model takes.
        summary: what it is for.
        streams: whether its answer can be a stream.
    """

    task: str
    prompts: tuple[str, ...]
    prompt: str
    schema: TypeAdapter[Any]
    summary: str
    streams: bool

    CHAT = "/v1/chat/completions", "chat", ("messages",), ChatCompletionRequest
    COMPLETIONS = "/v1/completions", "completions", ("prompt",), CompletionRequest
    EMBEDDINGS = "/v1/embeddings", "embeddings", ("input",), EmbeddingRequest
    SCORE = "/v1/score", "score", ("text_1", "text_2"), ScoreRequest
    RERANK = "/v1/rerank", "score", ("query", "documents"), RerankRequest

    def __new__(cls, path: str, task: str, prompts: tuple[str, ...], body: type) -> "Endpoint":
        member = str.__new__(cls, path)
        member._value_, member.task, member.schema = path, task, TypeAdapter(body)
        member.prompts, member.prompt = prompts, prompts[-1]
        member.summary, member.streams = (body.__doc__ or "").partition("\n")[0], "stream" in body.__annotations__
        return member
