"""A stream that outlives its engine: when it breaks off, another replica goes on with it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import orjson

from gateway.completion.answer import Answer, EngineAnswer
from gateway.completion.frames import BROKEN, continued, resumed
from gateway.completion.request import Call
from gateway.completion.seam import Said, Seam, can_continue, continuation, is_used_up
from gateway.errors import GatewayError
from gateway.limits.usage import Ended
from gateway.upstream.relay import Client
from gateway.upstream.usage import Usage

log = logging.getLogger(__name__)

# A request may be what ends an engine; it does not get to try them all.
_MAX_RESUMES = 2

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
        self._first = first.source
        self._seam: Seam | None = None
        self._resumes = 0
        self._later: list[bytes] = []

    async def body(self) -> bytes:
        return await self._part.body()

    def frames(self) -> AsyncGenerator[bytes]:
        return resumed(self._part.frames(), self._resume)

    async def relay(self, client: Client) -> None:
        try:
            await self._part.relay(client)
            return
        except BROKEN as error:
            failure = error
        async with aclosing(resumed(await self._resume(failure), self._resume)) as frames:
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

    async def _resume(self, failure: GatewayError) -> AsyncGenerator[bytes]:
        """Another replica's part of the answer; raises `failure` where nobody can tell it."""
        said = self._said() if self._resumes < _MAX_RESUMES else None
        if said is None:
            raise failure
        self._resumes += 1
        await self._part.aclose()
        try:
            self._part = await self._go_on(continuation(self._call, said))
        except GatewayError as error:
            log.info("a broken answer of %s cannot be gone on with: %s", self._call.model, error)
            raise failure from error
        self.updated = self.updated or self._part.updated
        self._seam = Seam(said, used_up=is_used_up(self._call, said))
        return continued(self._seam.join(self._part.events()), self._later)

    def _said(self) -> Said | None:
        """What the client has got; None where it cannot be gone on with."""
        kept = self._first.kept if self._first is not None else None
        if kept is None or not can_continue(self._call):
            return None
        try:
            return Said.in_frames([*kept, *self._later])
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            return None

    def _used(self) -> Usage:
        used = self._part.used()
        return used if self._seam is None else self._seam.joined(used)
