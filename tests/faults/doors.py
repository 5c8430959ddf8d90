"""The doors of the gateway, each through the client that people use, with nothing tried again on their side.

Each model has a key of its own that may use no other: a skill's caller does not name a model, it gets the first one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from chatbot.client import Failure, Gateway, Prompt
from tests.remote import remote_runnable

QUESTION: Any = [{"role": "user", "content": "Tell me."}]


@dataclass
class Heard:
    """What a client has got.

    Attributes:
        text: of the answer.
        finish_reason: None where the door does not tell.
        error: what its client raised, which ended the answer.
        chunks: as the SDK gives them.
    """

    text: str = ""
    finish_reason: str | None = None
    error: Exception | None = None
    chunks: list[Any] = field(default_factory=list)


def key(model: str) -> str:
    return f"sk-{model}"


def sdk(base: str, api_key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=api_key, max_retries=0, timeout=30)


async def stream(base: str, model: str, **fields: Any) -> Heard:
    heard = Heard()
    try:
        async with sdk(base, key(model)) as client:
            answer = await client.chat.completions.create(
                model=model, messages=QUESTION, stream=True, stream_options={"include_usage": True}, extra_body=fields
            )
            async for chunk in answer:
                heard.chunks.append(chunk)
                for choice in chunk.choices:
                    heard.text += choice.delta.content or ""
                    heard.finish_reason = choice.finish_reason or heard.finish_reason
    except openai.APIError as error:
        heard.error = error
    return heard


async def whole(base: str, model: str) -> Heard:
    try:
        async with sdk(base, key(model)) as client:
            answer = await client.chat.completions.create(model=model, messages=QUESTION)
    except openai.APIError as error:
        return Heard(error=error)
    return Heard(answer.choices[0].message.content or "", answer.choices[0].finish_reason)


async def completion(base: str, model: str) -> Heard:
    heard = Heard()
    try:
        async with sdk(base, key(model)) as client:
            async for chunk in await client.completions.create(model=model, prompt="Tell me.|", stream=True):
                for choice in chunk.choices:
                    heard.text += choice.text
                    heard.finish_reason = choice.finish_reason or heard.finish_reason
    except openai.APIError as error:
        heard.error = error
    return heard


async def chain(base: str, model: str) -> Heard:
    heard = Heard()
    remote = remote_runnable(f"{base}/chains/chat", headers={"x-api-key": key(model)})
    try:
        async for piece in remote.astream({"input": "Tell me."}, config={"configurable": {"model": model}}):
            heard.text += piece if isinstance(piece, str) else str(piece.content)
    except Exception as error:  # noqa: BLE001  # RemoteRunnable raises what its parts raise
        heard.error = error
    return heard


async def skill(base: str, model: str) -> Heard:
    """As REST: Semantic Kernel's own client tells no more of a failure than that there was one."""
    async with httpx.AsyncClient(base_url=base, headers={"api-key": key(model)}, timeout=30) as client:
        answer = await client.post("/skills/text/summarize", json={"text": "Tell me."})
    if answer.is_success:
        return Heard(answer.json()["value"])
    assert answer.json()["error"]["message"]
    return Heard(error=httpx.HTTPStatusError(answer.text, request=answer.request, response=answer))


async def page(base: str, model: str) -> Heard:
    heard = Heard()
    try:
        async with Gateway(base, key(model)) as client:
            async for delta in client.answer(Prompt(model, QUESTION, temperature=1.0, max_tokens=99)):
                heard.text += delta.text
                heard.finish_reason = delta.finish_reason or heard.finish_reason
    except Failure as error:
        heard.error = error
    return heard


Door = Callable[[str, str], Awaitable[Heard]]
DOORS: dict[str, Door] = {
    "stream": stream,
    "whole": whole,
    "completion": completion,
    "chain": chain,
    "skill": skill,
    "page": page,
}
# Of the models of tests that go through one door only.
NONE = "-"


def model(kind: str, fault: str, door: str = NONE) -> str:
    return f"{kind}: {fault}: {door}"
