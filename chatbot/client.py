"""What the chat page asks of the gateway: which models there are, and an answer, streamed.

HTTP only: any server that speaks the OpenAI protocol will do. Knows nothing of Gradio, nor of a user's session.

    Failure            its message is one sentence for a person
      KeyRequired      the gateway wants a key, or another one than it got
      Unreachable      nobody answers at the gateway's address
      Refused          the gateway's verdict on the request: unknown model, over a limit, no replica, ...
      Interrupted      an answer that began and did not finish
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypedDict, cast

import httpx2
import openai
from openai import AsyncOpenAI, Omit, omit
from openai.types.chat import ChatCompletionMessageParam

# Seconds. A first token may wait for a queue and a long prefill; a dead address should not.
_TIMEOUT = httpx2.Timeout(connect=5, read=300, write=30, pool=5)


class Failure(Exception):
    """Base of everything that can go wrong between the page and the gateway."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class KeyRequired(Failure):
    pass


class Unreachable(Failure):
    pass


class Refused(Failure):
    pass


class Interrupted(Failure):
    pass


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request for an answer: the conversation so far and how to sample its continuation."""

    model: str
    messages: Sequence[Message]
    temperature: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer; `finish_reason` is set on the last one ("stop", "length", ...)."""

    text: str
    finish_reason: str | None = None


class Gateway:
    """The gateway as one origin, such as `http://127.0.0.1:8080`.

    A call's `key` stands in for the gateway-wide one; with neither, no Authorization header is sent.
    Nothing is retried: a person who waits wants the reason, and can press Enter again.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._key = key
        # The environment's proxies are for the internet. Idle connections are dropped before a server would (5 s).
        http = httpx2.AsyncClient(
            timeout=_TIMEOUT,
            trust_env=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=4),
        )
        # Explicit values, lest the SDK takes OPENAI_* from the environment and sends them here.
        self._sdk = AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="", admin_api_key="", max_retries=0, http_client=http, timeout=_TIMEOUT
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sdk.close()

    async def models(self, key: str | None = None) -> list[str]:
        """The names of the models that can chat, in the gateway's order.

        An entry without the gateway's extra field `tasks` counts as able to chat.
        """
        try:
            page = await self._sdk.models.list(extra_headers=self._headers(key))
            return [model.id for model in page.data if "chat" in getattr(model, "tasks", ["chat"])]
        except openai.APIError as error:
            raise self._failure(error) from error
        except (AttributeError, TypeError, ValueError) as error:
            raise Refused(f"{self.url} answers, but not as a gateway does.") from error

    async def answer(self, prompt: Prompt, key: str | None = None) -> AsyncGenerator[Delta, None]:
        """The answer, piece by piece as the engine writes it.

        Closing the generator or cancelling its reader, at any point and also before the first piece, closes the
        connection, by which the gateway knows to stop the engine.
        """
        finished = False
        try:
            stream = await self._sdk.chat.completions.create(
                model=prompt.model,
                messages=cast("Sequence[ChatCompletionMessageParam]", prompt.messages),
                temperature=prompt.temperature,
                max_tokens=prompt.max_tokens,
                stream=True,
                extra_headers=self._headers(key),
            )
        except openai.APIError as error:
            raise self._failure(error) from error
        async with stream:
            try:
                async for chunk in stream:
                    for choice in chunk.choices:
                        finished = finished or choice.finish_reason is not None
                        yield Delta(choice.delta.content or "", choice.finish_reason)
            except openai.APIConnectionError as error:
                raise Interrupted("The connection to the gateway broke off.") from error
            except openai.APIError as error:
                raise Interrupted(error.message) from error
            except ValueError as error:
                raise Interrupted("The gateway sent something that is not an answer.") from error
        if not finished:
            raise Interrupted("The answer ended before it was finished.")

    def _headers(self, key: str | None) -> Mapping[str, str | Omit]:
        key = key or self._key
        if key and not (key.isascii() and key.isprintable()):
            raise KeyRequired("An API key has only plain letters, digits and signs.")
        return {
            "Authorization": f"Bearer {key}" if key else omit,
            "OpenAI-Organization": omit,
            "OpenAI-Project": omit,
        }

    def _failure(self, error: openai.APIError) -> Failure:
        if isinstance(error, openai.APITimeoutError):
            return Unreachable(f"The gateway at {self.url} took too long to answer.")
        if isinstance(error, openai.APIConnectionError):
            return Unreachable(f"The gateway at {self.url} does not answer.")
        reason = error.body.get("message") if isinstance(error.body, dict) else None
        if isinstance(error, openai.AuthenticationError):
            return KeyRequired(reason or "The gateway asks for an API key.")
        if isinstance(error, openai.APIStatusError):
            return Refused(reason or f"The gateway answered with status {error.status_code}.")
        return Refused(reason or error.message)
