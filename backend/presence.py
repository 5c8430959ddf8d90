"""A replica's presence in the directory: its records, renewed while it lives, with its state and its engine's load."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Self

import aiohttp

from backend.directory import HEARTBEAT_S, Directory, Record, State
from backend.engines.base import Load

log = logging.getLogger(__name__)


class Presence:
    """One replica's records, in the state STARTING at first."""

    def __init__(self, directory: Directory, records: Sequence[Record]) -> None:
        self._directory = directory
        self._records = records
        self._read_load: Callable[[], Awaitable[Load]] | None = None
        # An older heartbeat must not come after a newer state.
        self._telling = asyncio.Lock()
        self._left = False
        self._heartbeat = asyncio.create_task(self._beat())

    @classmethod
    async def announce(cls, directory: Directory, records: Sequence[Record]) -> Self:
        """Puts the records in the directory and keeps them there."""
        presence = cls(directory, records)
        await presence._tell()
        return presence

    async def ready(self, read_load: Callable[[], Awaitable[Load]]) -> None:
        """From now on requests may come, and each heartbeat tells the load."""
        self._read_load = read_load
        await self._become(State.READY)

    async def lost(self) -> None:
        """The engine is gone: no requests are to come until another replica has taken this one's place."""
        self._read_load = None
        await self._become(State.STARTING)

    async def drain(self) -> None:
        """From now on no new requests are to come."""
        await self._become(State.DRAINING)

    async def leave(self) -> None:
        """Takes the records out of the directory, for good. Idempotent."""
        self._heartbeat.cancel()
        with suppress(asyncio.CancelledError):
            await self._heartbeat
        async with self._telling:
            if not self._left:
                self._left = True
                await self._directory.withdraw(self._records)

    async def _become(self, state: State) -> None:
        self._records = [replace(record, state=state) for record in self._records]
        await self._tell()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for step in (self._measure, self._tell):
                try:
                    await step()
                except Exception:  # a heart that stops takes a replica that is well from everybody
                    log.exception("%s: a heartbeat went wrong; trying again", self._records[0].id)

    async def _measure(self) -> None:
        if self._read_load is None:
            return
        try:
            load = await self._read_load()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s: the engine's load cannot be read: %s", self._records[0].id, error)
        else:
            told = asdict(load) | {"measured_at": time.time()}
            self._records = [replace(record, **told) for record in self._records]

    async def _tell(self) -> None:
        async with self._telling:
            if not self._left:
                await self._directory.publish(self._records)
