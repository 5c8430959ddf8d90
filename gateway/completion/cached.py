"""Answers that come out of the cache."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

import orjson

from gateway.cache.claim import Claim
from gateway.cache.entry import Entry
from gateway.completion import assembly
from gateway.completion.answer import Answer
from gateway.completion.flight import Flight
from gateway.completion.frames import from_cache
from gateway.completion.request import Call
from gateway.upstream.relay import Client
from gateway.upstream.sse import payloads
from gateway.upstream.usage import Usage


def serves(entry: Entry | Claim | Flight, call: Call) -> bool:
    """Whether the entry says all that is asked for, or will: a stream may lack its usage."""
    return entry.usage or not call.wants_usage


class CachedAnswer(Answer):
    """
    Args:
        paced: a stream comes at the pace it was written, else at once.
        outcome: `hit`, or how else it was found.
    """

    def __init__(self, entry: Entry, call: Call, *, paced: bool, outcome: str = "hit") -> None:
        headers = (b"x-llmgw-cache", outcome.encode()), (b"age", b"%d" % entry.age_s)
        super().__init__(stream=call.stream, headers=headers)
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
        return orjson.dumps(assembly.whole(chunks_of(part for _, part in self._entry.parts)))

    def frames(self) -> AsyncGenerator[bytes]:
        return from_cache(self._parts(), paced=self._paced)

    async def relay(self, client: Client) -> None:
        async for frames in self.frames():
            if not client.write(frames) and client.full is not None:
                await asyncio.shield(client.full)

    async def aclose(self) -> None:
        pass

    def _parts(self) -> Sequence[tuple[int, bytes]]:
        entry, usage = self._entry, self._call.wants_usage
        if entry.whole:
            return [(0, framed(assembly.chunks(orjson.loads(entry.whole), usage)))]
        if entry.usage == usage:
            return entry.parts if self._paced else [(0, b"".join(part for _, part in entry.parts))]
        return [(at_ms, framed(assembly.without_usage(chunks_of([part])))) for at_ms, part in entry.parts]


def chunks_of(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(payload) for part in frames for payload in payloads(part)]


def framed(chunks: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)
