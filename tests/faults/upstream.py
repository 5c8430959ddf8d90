"""An OpenAI-speaking engine that fails as it is told to, on real sockets.

It says the same words to everybody, and goes on with them where the beginning of its answer is given to it, as vLLM
does with `continue_final_message`. So what a whole answer is, is known, however many engines it came from.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.gateway.raw_server import END, STREAM_HEAD, chunk, event, read_request, sized

# Cut as tokens are: inside words too, and beside characters of several bytes.
TOKENS = ("Once", " up", "on", " a", " t", "ime", ",", " é", "t", "é", " 🌊", "🌊", "\n\n", ' "qu', 'ote"', " end")
TEXT = "".join(TOKENS)
PROMPT_TOKENS = 7
DONE = event(b"[DONE]")


class Reply:
    """One request, and what can be answered to it."""

    def __init__(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        self.body: dict[str, Any] = json.loads(request.partition(b"\r\n\r\n")[2])
        self.writer = writer
        self.chat = "messages" in self.body
        self.prefix = self._prefix()
        assert TEXT.startswith(self.prefix), self.prefix

    def _prefix(self) -> str:
        if not self.chat:
            return str(self.body["prompt"]).partition("|")[2]
        last = self.body["messages"][-1]
        if last["role"] != "assistant":
            return ""
        assert self.body["continue_final_message"] is True
        assert self.body["add_generation_prompt"] is False
        return str(last["content"])

    @property
    def tokens(self) -> Sequence[str]:
        """What is left to say, of the whole or of as much as is wanted."""
        left, said = [], ""
        for token in TOKENS:
            if len(said) >= len(self.prefix):
                left.append(token)
            said += token
        return left[: self.body.get("max_tokens") or len(left)]

    @property
    def finish_reason(self) -> str:
        return "stop" if self.prefix + "".join(self.tokens) == TEXT else "length"

    def event(self, **choice: Any) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        common = {"id": f"c-{id(self)}", "object": kind, "created": id(self) % 1000, "model": self.body["model"]}
        choices = [{"index": 0, "finish_reason": None, **choice}] if choice else []
        usage = None if choice else self.usage
        return event(json.dumps({**common, "choices": choices, "usage": usage}, ensure_ascii=False).encode())

    @property
    def usage(self) -> dict[str, int]:
        prompt = PROMPT_TOKENS + len(TOKENS) - len(self._left)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": len(self.tokens),
            "total_tokens": prompt + len(self.tokens),
        }

    @property
    def _left(self) -> Sequence[str]:
        said = len(self.prefix)
        return TOKENS[next((n for n in range(len(TOKENS) + 1) if len("".join(TOKENS[:n])) == said), 0) :]

    def said(self, text: str) -> bytes:
        return self.event(**({"delta": {"content": text}} if self.chat else {"text": text}))

    def send(self, data: bytes) -> None:
        self.writer.write(chunk(data))

    def begin(self, tokens: int | None = None) -> None:
        """The head of a stream, who speaks, and some of the tokens, each in a piece of its own."""
        self.writer.write(STREAM_HEAD)
        if self.chat:
            self.send(self.event(delta={"role": "assistant", "content": ""}))
        for text in self.tokens[:tokens]:
            self.send(self.said(text))

    def finish(self, done: bytes = DONE, end: bytes = END) -> None:
        nothing: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        self.send(self.event(finish_reason=self.finish_reason, **nothing))
        if (self.body.get("stream_options") or {}).get("include_usage"):
            self.send(self.event())
        self.writer.write((chunk(done) if done else b"") + end)

    def whole(self) -> bytes:
        message = {"role": "assistant", "content": "".join(self.tokens)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return json.dumps({"id": "c", "model": self.body["model"], "choices": [choice], "usage": self.usage}).encode()


Fault = Callable[[Reply], Awaitable[None]]


async def well(reply: Reply) -> None:
    if reply.body.get("stream"):
        reply.begin()
        reply.finish()
    else:
        reply.writer.write(sized(reply.whole()))


@dataclass
class Cluster:
    """Engines that share a plan: the n-th request, whoever gets it, meets the n-th fault; later ones are served well.

    Attributes:
        urls: of the engines.
        asked: the requests, and which engine each went to.
        plans: of single models, which have one of their own.
    """

    urls: list[str] = field(default_factory=list)
    plan: list[Fault] = field(default_factory=list)
    asked: list[tuple[int, Reply]] = field(default_factory=list)
    plans: dict[str, list[Fault]] = field(default_factory=dict)

    def expect(self, *faults: Fault) -> None:
        self.plan, self.asked = list(faults), []

    def asked_for(self, model: str) -> int:
        """How many requests there were for this model."""
        return sum(reply.body["model"] == model for _, reply in self.asked)

    async def serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                reply = Reply(await read_request(reader), writer)
                self.asked.append((number, reply))
                plan = self.plans.get(reply.body["model"], self.plan)
                await (plan.pop(0) if plan else well)(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def cluster(engines: int = 2, host: str = "127.0.0.1") -> AsyncIterator[Cluster]:
    shared, listeners = Cluster(), []
    connections: set[asyncio.Task[None]] = set()

    def accept(number: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(shared.serve(number, reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        return accepted

    for number in range(engines):
        listeners.append(await asyncio.start_server(accept(number), host, 0))
        shared.urls.append(f"http://{host}:{listeners[-1].sockets[0].getsockname()[1]}")
    try:
        yield shared
    finally:
        for listener in listeners:
            listener.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
