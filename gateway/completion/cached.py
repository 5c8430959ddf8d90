"""Answers that come out of the cache, and answers that go into it as they pass."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import orjson

from gateway.cache.entry import Entry
from gateway.completion import assembly
from gateway.completion.answer import Answer
from gateway.completion.request import Call
from gateway.upstream.relay import Client
from gateway.upstream.sse import payloads
from gateway.upstream.usage import Usage

# How an answer ends that is an answer; an engine that is stopped ends one with `abort`.
_OTHER_END = re.compile(rb'"finish_reason"\s*:\s*"(?!(?:stop|length|tool_calls|function_call|content_filter)")')


def serves(entry: Entry, call: Call) -> bool:
    """Whether the entry says all that is asked for: a stream that was kept may lack its usage."""
    return entry.usage or not call.wants_usage


class CachedAnswer(Answer):
    """
    Args:
        paced: a stream comes at the pace it was written, else at once.
    """

    def __init__(self, entry: Entry, call: Call, *, paced: bool) -> None:
        self.stream = call.stream
        self.headers = ((b"x-llmgw-cache", b"hit"), (b"age", b"%d" % entry.age_s))
        self._entry = entry
        self._call = call
        self._paced = paced

    @property
    def usage(self) -> Usage:
        """No engine has worked for it: what it says was used then, is what the cache has saved now."""
        told = Usage.find(self._entry.whole or self._entry.parts[-1][1]) or Usage()
        return Usage(cached=told.prompt + told.completion)

    async def body(self) -> bytes:
        if self._entry.whole:
            return self._entry.whole
        return orjson.dumps(assembly.whole(_chunks(part for _, part in self._entry.parts)))

    async def frames(self) -> AsyncGenerator[bytes]:
        began = time.monotonic()
        for at_ms, part in self._parts():
            if self._paced and (wait_s := began + at_ms / 1000 - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            yield part

    async def relay(self, client: Client) -> None:
        async for frames in self.frames():
            if not client.write(frames) and client.full is not None:
                await asyncio.shield(client.full)

    async def aclose(self) -> None:
        pass

    def _parts(self) -> Sequence[tuple[int, bytes]]:
        entry, usage = self._entry, self._call.wants_usage
        if entry.whole:
            return [(0, _framed(assembly.chunks(orjson.loads(entry.whole), usage)))]
        if entry.usage == usage:
            return entry.parts if self._paced else [(0, b"".join(part for _, part in entry.parts))]
        return [(at_ms, _framed(assembly.without_usage(_chunks([part])))) for at_ms, part in entry.parts]


class KeptAnswer(Answer):
    """An answer that is handed to `keep` once it has passed whole; one that fails or is left is not.

    Args:
        max_bytes: of a longer answer nothing is kept.
    """

    headers = ((b"x-llmgw-cache", b"miss"),)

    def __init__(self, answer: Answer, call: Call, max_bytes: int, keep: Callable[[Entry], None]) -> None:
        self.stream = answer.stream
        self._answer = answer
        self._call = call
        self._left = max_bytes
        self._keep = keep
        self._parts: list[tuple[int, bytes]] = []
        self._began = 0.0

    async def body(self) -> bytes:
        body = await self._answer.body()
        if len(body) <= self._left and not _OTHER_END.search(body):
            self._keep(Entry(int(time.time()), True, [], body))
        return body

    async def frames(self) -> AsyncGenerator[bytes]:
        async for frames in self._answer.frames():
            self._note(frames)
            yield frames
        self._finish()

    async def relay(self, client: Client) -> None:
        await self._answer.relay(_Tee(client, self._note))
        self._finish()

    async def aclose(self) -> None:
        await self._answer.aclose()

    def _note(self, frames: bytes) -> None:
        self._left -= len(frames)
        if self._left < 0:
            self._parts.clear()
            return
        now = time.monotonic()
        self._began = self._began or now
        self._parts.append((int((now - self._began) * 1000), frames))

    def _finish(self) -> None:
        if self._parts and self._left >= 0 and not any(_OTHER_END.search(part) for _, part in self._parts):
            self._keep(Entry(int(time.time()), self._call.wants_usage, self._parts))


class _Tee:
    """A client whose bytes are noted on their way."""

    def __init__(self, client: Client, note: Callable[[bytes], None]) -> None:
        self._client = client
        self._note = note

    @property
    def full(self) -> "asyncio.Future[None] | None":
        return self._client.full

    def write(self, data: bytes) -> bool:
        self._note(data)
        return self._client.write(data)


def _chunks(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(payload) for part in frames for payload in payloads(part)]


def _framed(chunks: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)
