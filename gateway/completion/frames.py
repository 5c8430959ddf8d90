"""The asynchronous generators of the answers: what one gives, as it comes.

They stand apart from the answers, since mypyc compiles those and cannot compile these. They know of an answer what they
are given of it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import orjson

from gateway.completion.flight import Flight, FlightLost
from gateway.errors import DeadlineExceeded, GatewayError, UpstreamFailed
from gateway.upstream.relay import EventStream
from gateway.upstream.sse import payloads

# What ends a stream that another replica may go on with.
BROKEN = (UpstreamFailed, DeadlineExceeded)


async def parsed(frames: AsyncGenerator[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """The events in them."""
    async for some in frames:
        for payload in payloads(some):
            try:
                yield orjson.loads(payload)
            except orjson.JSONDecodeError as error:
                raise UpstreamFailed("The engine sent an event that is not valid JSON.") from error


async def from_engine(
    first: bytes, source: EventStream | None, failed: Callable[[GatewayError], None]
) -> AsyncGenerator[bytes]:
    """`first`, and what comes after it; `failed` is told what the stream fails with."""
    frames = first
    try:
        while frames and source is not None:
            yield frames
            frames = await source.read()
    except GatewayError as error:
        failed(error)
        raise


async def from_cache(parts: Iterable[tuple[int, bytes]], *, paced: bool) -> AsyncGenerator[bytes]:
    """The parts, each with the milliseconds since the first: at that pace, else at once."""
    began = time.monotonic()
    for at_ms, part in parts:
        if paced and (wait_s := began + at_ms / 1000 - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        yield part


async def from_flight(
    flight: Flight,
    wanted: Callable[[bytes], bytes],
    elsewhere: Callable[[FlightLost], Awaitable[AsyncGenerator[bytes]]],
) -> AsyncGenerator[bytes]:
    """What is `wanted` of a flight's parts; when it is lost, the rest from `elsewhere`."""
    at = 0
    while True:
        try:
            at, data = await flight.read(at)
        except FlightLost as error:
            rest = await elsewhere(error)
            break
        if not data:
            return
        if frames := wanted(data):
            yield frames
    async for frames in rest:
        yield frames


async def led(
    frames: AsyncGenerator[bytes],
    write: Callable[[bytes], object],
    complete: Callable[[], None],
    failed: Callable[[BaseException], None],
) -> AsyncGenerator[bytes]:
    """The frames, which go to `write` as well; how they end is told."""
    try:
        async for some in frames:
            write(some)
            yield some
    except GatewayError as error:
        failed(error)
        raise
    complete()


async def from_later(answer: Callable[[], Awaitable[AsyncGenerator[bytes]]]) -> AsyncGenerator[bytes]:
    """Of an answer that has to be waited for first."""
    async for frames in await answer():
        yield frames


async def resumed(
    frames: AsyncGenerator[bytes], resume: Callable[[GatewayError], Awaitable[AsyncGenerator[bytes]]]
) -> AsyncGenerator[bytes]:
    """The frames, and whenever they break off those that `resume` goes on with; it raises what it cannot mend."""
    while True:
        try:
            async with aclosing(frames):
                async for some in frames:
                    yield some
            return
        except BROKEN as error:
            failure = error
        frames = await resume(failure)


async def continued(frames: AsyncGenerator[bytes], said: list[bytes]) -> AsyncGenerator[bytes]:
    """What another replica goes on with, added to what was `said`; a comment before it tells so."""
    yield b": llmgw-resumed\n\n"
    async with aclosing(frames):
        async for some in frames:
            said.append(some)
            yield some
