"""A stream that outlives its engine: when it breaks off, another replica goes on with it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import orjson

from gateway.completion.answer import Answer, EngineAnswer
from gateway.completion.request import Call
from gateway.completion.seam import Said, Seam, can_continue, continuation, is_used_up
from gateway.errors import DeadlineExceeded, GatewayError, UpstreamFailed
from gateway.limits.usage import Ended
from gateway.upstream.relay import Client
from gateway.upstream.usage import Usage

log = logging.getLogger(__name__)

# A request may be what ends an engine; it does not get to try them all.
_MAX_RESUMES = 2
_BROKEN = (UpstreamFailed, DeadlineExceeded)

# Finds another replica for the rest of an answer; raises GatewayError where there is none.
Continue = Callable[[Call], Awaitable[EngineAnswer]]


class ResumableAnswer(Answer):
    """
    Args:
        first: the stream as it began; its events are kept.
        go_on: asks another replica.
        ended: as of an EngineAnswer.
    """

    def __init__(self, first: EngineAnswer, call: Call, go_on: Continue, ended: Ended | None) -> None:
        super().__init__(stream=True)
        self._part = first
        self._call = call
        self._go_on = go_on
        self._ended = ended
        self._seam: Seam | None = None
        self._later: list[bytes] = []

    async def body(self) -> bytes:
        return await self._part.body()

    async def frames(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._part.frames()) as frames:
                async for some in frames:
                    yield some
            return
        except _BROKEN as error:
            failure = error
        async with aclosing(self._rest(failure)) as frames:
            async for some in frames:
                yield some

    async def relay(self, client: Client) -> None:
        try:
            await self._part.relay(client)
            return
        except _BROKEN as error:
            failure = error
        async with aclosing(self._rest(failure)) as frames:
            async for some in frames:
                if not client.write(some) and client.full is not None:
                    await asyncio.shield(client.full)

    async def aclose(self) -> None:
        try:
            await self._part.aclose()
        finally:
            ended, self._ended = self._ended, None
            if ended is not None:
                ended(self._used())

    async def _rest(self, failure: GatewayError) -> AsyncGenerator[bytes]:
        """What is left of the answer; raises `failure` where nobody can tell it."""
        first = self._part
        for _ in range(_MAX_RESUMES):
            said = self._said(first)
            if said is None:
                break
            await self._part.aclose()
            try:
                self._part = await self._go_on(continuation(self._call, said))
            except GatewayError as error:
                log.info("a broken answer of %s cannot be gone on with: %s", self._call.model, error)
                break
            self._seam = Seam(said, used_up=is_used_up(self._call, said))
            yield self._keep(b": llmgw-resumed\n\n")
            try:
                async with aclosing(self._seam.join(self._part.events())) as frames:
                    async for some in frames:
                        yield self._keep(some)
                return
            except _BROKEN as error:
                failure = error
        raise failure

    def _said(self, first: EngineAnswer) -> Said | None:
        """What the client has got; None where it cannot be gone on with."""
        kept = first.source.kept if first.source is not None else None
        if kept is None or not can_continue(self._call):
            return None
        try:
            return Said.in_frames([*kept, *self._later])
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            return None

    def _keep(self, frames: bytes) -> bytes:
        self._later.append(frames)
        return frames

    def _used(self) -> Usage:
        used = self._part.used()
        return used if self._seam is None else self._seam.joined(used)
