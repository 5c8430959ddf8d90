"""A completion path whose answers are written down: for tests of the doors that need exact sequences of events."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.errors import GatewayError, ModelNotFound
from gateway.routing.pool import Pool

MODEL = Pool("small", frozenset({"chat"}), 2_048)


@dataclass
class Script:
    """How one call is answered.

    Attributes:
        tokens: the texts of the deltas; a GatewayError among them breaks the stream there.
        tool_calls: raw delta fragments, sent after the tokens.
        hold: once `tokens` are out, the answer waits for this event, if there is one.
    """

    tokens: Sequence[str | Exception] = ("Hello", " world")
    tool_calls: Sequence[dict[str, Any]] = ()
    finish_reason: str = "stop"
    hold: asyncio.Event | None = None


class ScriptedAnswer:
    def __init__(self, script: Script, model: str, usage: bool) -> None:
        self._script = script
        self._model = model
        self._usage = usage
        self.finished = False
        self.closed = asyncio.Event()

    async def json(self) -> dict[str, Any]:
        if self._script.hold:
            await self._script.hold.wait()
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        for token in self._script.tokens:
            if isinstance(token, Exception):
                raise token
            message["content"] += token
        if self._script.tool_calls:
            message["tool_calls"] = list(self._script.tool_calls)
        self.finished = True
        choice = {"index": 0, "message": message, "finish_reason": self._script.finish_reason}
        return {"id": "c-1", "model": self._model, "choices": [choice], "usage": self._counts()}

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        yield self._event({"role": "assistant", "content": ""})
        for token in self._script.tokens:
            if isinstance(token, Exception):
                raise token
            yield self._event({"content": token})
        if self._script.hold:
            await self._script.hold.wait()
        for call in self._script.tool_calls:
            yield self._event({"tool_calls": [call]})
        yield self._event({}, self._script.finish_reason)
        if self._usage:
            yield {"id": "c-1", "model": self._model, "choices": [], "usage": self._counts()}
        self.finished = True

    async def aclose(self) -> None:
        self.closed.set()

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {"id": "c-1", "model": self._model, "choices": [choice], "usage": None}

    def _counts(self) -> dict[str, int]:
        completion = len(self._script.tokens)
        return {"prompt_tokens": 7, "completion_tokens": completion, "total_tokens": 7 + completion}


@dataclass
class ScriptedCatalog:
    known: list[Pool] = field(default_factory=list)

    def models(self, context: RequestContext) -> list[Pool]:
        return [pool for pool in self.known if context.allows(pool.model)]

    def model(self, name: str, context: RequestContext) -> Pool:
        for pool in self.models(context):
            if pool.model == name:
                return pool
        raise ModelNotFound(f"The model '{name}' does not exist.", param="model")

    def default(self, task: str, context: RequestContext) -> Pool:
        return next(pool for pool in self.models(context) if task in pool.tasks)


class ScriptedPath:
    """Answers every call with `reply(call)`: a script, or the error it raises."""

    def __init__(self) -> None:
        self.catalog: Any = ScriptedCatalog()
        self.reset()

    def reset(self) -> None:
        self.catalog.known = [MODEL]
        self.reply: Callable[[Call], Script | GatewayError] = lambda call: Script()
        self.calls: list[Call] = []
        self.contexts: list[RequestContext] = []
        self.answers: list[ScriptedAnswer] = []
        self.called = asyncio.Event()

    async def send(self, call: Call, context: RequestContext) -> Any:
        self.catalog.model(call.model, context)
        self.calls.append(call)
        self.contexts.append(context)
        reply = self.reply(call)
        if isinstance(reply, GatewayError):
            raise reply
        answer = ScriptedAnswer(reply, call.model, usage=bool(call.payload.get("stream_options")))
        self.answers.append(answer)
        self.called.set()
        return answer
