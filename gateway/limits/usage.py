"""What each key has used, by model, door and day.

    {llmgw}:usage:<day>         a hash: JSON [tenant, key, model, door, what] to a sum; kept for KEEP_DAYS
    {llmgw}:usage:batch:<id>    a batch that was added, so that one sent twice counts once

A worker sums in memory and adds to Redis every FLUSH_S. While Redis is away the sums wait; what it has not written to
its disk yet, where it writes to one, is given to it again after it was away.
"""

import asyncio
import csv
import io
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, RedisError

from gateway.context import RequestContext
from gateway.metrics import Metrics
from gateway.redis_cluster import TAG
from gateway.redis_follower import stopping
from gateway.redis_part import RedisPart
from gateway.upstream.usage import Usage

log = logging.getLogger(__name__)

PREFIX = f"{TAG}:usage"
FLUSH_S = 1.0
KEEP_DAYS = 400
# How long Redis may take to write a batch to its disk, in parts that are shorter than the client's patience. One that
# leaves that to its operating system never says so.
_SYNC_MS, _SYNCS = 1500, 3
SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "milliseconds")
_ADD = resources.files("gateway.limits").joinpath("usage.lua").read_text()


Ended = Callable[[Usage], None]


def of_model(ended: Ended, model: str) -> Ended:
    """Tells it of another model's usage than the one that was asked for."""

    def told(usage: Usage) -> None:
        ended(usage._replace(model=model))

    return told


class Account(NamedTuple):
    day: str
    tenant: str
    key: str
    model: str
    door: str


class Ledger:
    """A worker's sums on their way to Redis; without Redis nothing is kept."""

    def __init__(self, redis: Redis | None, metrics: Metrics) -> None:
        self._redis = redis
        self._part = RedisPart(
            "usage",
            metrics,
            log,
            "what is used is added up in Redis",
            "what is used waits, since Redis does not add it up",
        )
        self._add = redis.register_script(_ADD) if redis is not None else None
        # By the fields of an Account.
        self._sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(SUMS))
        self._day, self._midnight = "", 0.0
        # Given to Redis and not acknowledged: sent again as it is.
        self._sent: list[tuple[str, str, list[Any]]] = []

    def open(self, context: RequestContext, model: str, settle: Callable[[int], None] | None) -> Ended | None:
        """Begins an answer of a model. The result is to be told once what it has used, and tells `settle` the tokens.

        None where nobody wants to know.
        """
        if self._redis is None and settle is None:
            return None
        began = time.perf_counter()

        def ended(usage: Usage) -> None:
            self._note(context, usage.model or model, usage, time.perf_counter() - began)
            if settle is not None:
                settle(usage.prompt + usage.completion)

        return ended

    def _note(self, context: RequestContext, model: str, usage: Usage, seconds: float) -> None:
        if self._redis is None:
            return
        if time.time() >= self._midnight:
            self._day, self._midnight = _today()
        sums = self._sums[self._day, context.tenant, context.key_name, model, context.door]
        prompt, completion, cached, _ = usage
        sums[0] += 1
        sums[1] += prompt
        sums[2] += completion
        sums[3] += cached
        sums[4] += int(seconds * 1000)

    async def run(self) -> None:
        """Adds the sums to Redis until cancelled, and what is left then."""
        stopped: asyncio.CancelledError | None = None
        try:
            while not stopping():
                await asyncio.sleep(FLUSH_S)
                await self.flush()
        except asyncio.CancelledError as error:
            stopped = error
        await self.flush()
        if not self._sent:  # that was on its way; now what came meanwhile
            await self.flush()
        if stopped is not None:
            raise stopped

    async def flush(self) -> None:
        self._close_batches()
        sent = bool(self._sent)
        try:
            while self._sent:
                await self._deliver(*self._sent[0])
                self._sent.pop(0)
        except (RedisError, OSError, TimeoutError) as error:
            self._part.fails(error)
        else:
            if sent:
                self._part.works()

    async def _deliver(self, batch: str, day: str, arguments: list[Any]) -> None:
        """Returns once Redis has it and will not forget it; a batch that it has already counts no second time."""
        if self._redis is None or self._add is None:
            return
        for _ in range(_SYNCS):
            commands = self._redis.pipeline(transaction=False)
            keys = [f"{PREFIX}:batch:{batch}", f"{PREFIX}:{day}"]
            await self._add(keys, [KEEP_DAYS * 86400, *arguments], client=commands)
            commands.execute_command("WAITAOF", 1, 0, _SYNC_MS)
            added, synced = await commands.execute(raise_on_error=False)
            if isinstance(added, ReadOnlyError):  # it is no master any more, and a new connection may lead to one
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            if isinstance(added, Exception):
                raise added
            # It keeps no such file, or is too old to tell.
            if isinstance(synced, Exception) or synced[0]:
                return

    def _close_batches(self) -> None:
        """While a batch waits, the next one grows: what waits is bounded by the number of accounts."""
        if self._sent or not self._sums:
            return
        sums, by_day = dict(self._sums), defaultdict[str, list[Any]](list)
        self._sums.clear()
        for account, values in sums.items():
            for what, value in zip(SUMS, values, strict=True):
                by_day[account[0]] += [orjson.dumps([*account[1:], what]), value]
        self._sent = [(secrets.token_hex(8), day, arguments) for day, arguments in by_day.items()]


class UsageRow(NamedTuple):
    """One account's sums; tokens, and milliseconds from request to end of all answers together."""

    day: str
    tenant: str
    key: str
    model: str
    door: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    milliseconds: int


async def read(redis: Redis, first: date, last: date) -> list[UsageRow]:
    """The rows of these days, both included, in order."""
    days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    async with redis.pipeline(transaction=False) as commands:
        for day in days:
            commands.hgetall(f"{PREFIX}:{day}")
        found = await commands.execute()
    accounts: dict[Account, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
    for day, fields in zip(days, found, strict=True):
        for field, value in fields.items():
            *names, what = orjson.loads(field)
            accounts[Account(day, *names)][what] = int(value)
    return [UsageRow(*account, *accounts[account].values()) for account in sorted(accounts)]


def write_csv(rows: Iterable[UsageRow]) -> str:
    """The rows under the names of their columns."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(UsageRow._fields)
    writer.writerows(rows)
    return text.getvalue()


def _today() -> tuple[str, float]:
    """The day, and when it ends, in seconds since the epoch."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today.date().isoformat(), (today + timedelta(days=1)).timestamp()
