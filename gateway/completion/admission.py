"""How many requests of a model are at its engines at once; the others wait here, where a priority counts.

An engine's own queue is first come, first served, and as long as it is let. So a worker sends on what the replicas work
on at once and a few more, which wait at the engine so that no place there stays empty between two requests. What is
beyond waits in this worker: bounded in number and in time, and left at once by who gives up.

Workers do not ask each other. The kernel spreads connections over them, so of N requests a worker has N / workers, give
or take the deviation of that draw; each admits two deviations more than its part. All together they send engines a
little more than they work on, and a worker never holds requests back from engines that have nothing to do. Counting
places exactly, in Redis, would put a round trip on the path, twice a request, and leak the places of a killed worker.
"""

import asyncio
import math
from typing import Literal

from gateway.completion.waiting import Waiter, Waiting
from gateway.context import RequestContext
from gateway.errors import GatewayError, Overloaded
from gateway.limits.usage import Ended
from gateway.metrics import Metrics
from gateway.routing.directory import Directory
from gateway.routing.pool import Pool
from gateway.upstream.usage import Usage

_AT_THE_ENGINE = 1 / 8
_DEVIATIONS = 2


def places(capacity: int | None, workers: int) -> float:
    """How many requests one of `workers` sends to engines that work on `capacity` at once; None has no bound."""
    if capacity is None:
        return math.inf
    most = capacity + math.ceil(capacity * _AT_THE_ENGINE)
    part = 1 / workers
    return min(most, math.ceil(most * part + _DEVIATIONS * math.sqrt(most * part * (1 - part))))


class Slot:
    """A place at the engines, or where there is no bound, none.

    Attributes:
        waited_s: for how long its request waited.
    """

    __slots__ = ("_ended", "_line", "waited_s")

    def __init__(self, line: "_Line | None", waited_s: float = 0.0) -> None:
        self._line = line
        self._ended: Ended | None = None
        self.waited_s = waited_s

    def until(self, ended: Ended | None) -> Ended | None:
        """What an answer is to call when it is closed, which leaves the place and calls `ended`."""
        if self._line is None:
            return ended
        self._ended = ended
        return self._answered

    def leave(self) -> None:
        """Idempotent."""
        line, self._line = self._line, None
        if line is not None:
            line.leave()

    def _answered(self, usage: Usage) -> None:
        self.leave()
        if self._ended is not None:
            self._ended(usage)


_UNBOUNDED = Slot(None)


class Admission:
    """
    Args:
        workers: how many share the engines.
        queue_max: requests of a model that may wait in one worker.
        queue_wait_s: how long one may.
    """

    def __init__(
        self, directory: Directory, workers: int, queue_max: int, queue_wait_s: float, metrics: Metrics
    ) -> None:
        self.workers = workers
        self.queue_max = queue_max
        self.queue_wait_s = queue_wait_s
        self.metrics = metrics
        self._directory = directory
        self._lines: dict[str, _Line] = {}

    async def enter(self, pool: Pool, context: RequestContext) -> Slot:
        """Returns when the request may be sent to the pool's engines; one that has a place free does not wait.

        Raises:
            Overloaded: too many wait already, or it had to wait too long.
        """
        return self.free(pool) or await self._lines[pool.model].wait(context)

    def free(self, pool: Pool) -> Slot | None:
        """The place of a request that does not have to wait; None where it has to."""
        line = self._lines.get(pool.model)
        if line is None:
            if pool.capacity is None:
                return _UNBOUNDED
            line = self._lines[pool.model] = _Line(pool.model, self)
        if line.pool is not pool:
            line.follow(pool)
        if line.open >= line.places:
            return None
        line.open += 1
        return Slot(line)

    async def run(self) -> None:
        """Lets requests go on when replicas come, until cancelled."""
        while True:
            await self._directory.refreshed()
            for model, line in self._lines.items():
                if pool := self._directory.pool(model):
                    line.follow(pool)


class _Line:
    """The places at the engines of one model, and who waits for one.

    Attributes:
        open: places that are taken.
        places: how many there are; those of a pool without replicas are the last known.
    """

    def __init__(self, model: str, admission: Admission) -> None:
        self.open = 0
        self.places = 0.0
        self.pool: Pool | None = None
        self._model = model
        self._admission = admission
        self._waiting = Waiting(handicap_s=admission.queue_wait_s / 2)
        self._last_wait_s = 0.0

    def follow(self, pool: Pool) -> None:
        self.pool = pool
        if pool.replicas:
            self.places = places(pool.capacity, self._admission.workers)
            self._fill()

    async def wait(self, context: RequestContext) -> Slot:
        loop, longest_s = asyncio.get_running_loop(), self._admission.queue_wait_s
        if context.until is not None:
            longest_s = max(0.0, min(longest_s, context.until - loop.time()))
        waiter = Waiter(context.priority, loop.time(), loop.create_future())
        self._join(waiter)
        alarm = loop.call_later(longest_s, self._refuse, waiter, "late", f"had no place within {longest_s:.3g} s")
        try:
            refusal = await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                self._part(waiter)
            elif waiter.turn.result() is None:  # its turn had come
                self.leave()
            raise
        finally:
            alarm.cancel()
        if refusal is not None:
            raise refusal
        self._last_wait_s = loop.time() - waiter.since
        return Slot(self, self._last_wait_s)

    def leave(self) -> None:
        self.open -= 1
        if self._waiting.count:
            self._fill()

    def _fill(self) -> None:
        while self.open < self.places and self._waiting.count:
            waiter = self._waiting.first()
            self._part(waiter)
            if not waiter.turn.done():  # else it has been left a moment ago
                self.open += 1
                waiter.turn.set_result(None)

    def _join(self, waiter: Waiter) -> None:
        """A full queue gives up whoever comes last in it, the new one or another."""
        self._waiting.add(waiter)
        self._note_depth()
        if self._waiting.count > self._admission.queue_max:
            self._refuse(self._waiting.last(), "full", "has too many requests waiting")

    def _part(self, waiter: Waiter) -> None:
        self._waiting.discard(waiter)
        self._note_depth()

    def _refuse(self, waiter: Waiter, reason: Literal["full", "late"], what: str) -> None:
        self._part(waiter)
        if not waiter.turn.done():
            self._admission.metrics.note_refused(self._model, reason)
            waiter.turn.set_result(self._overloaded(what))

    def _overloaded(self, what: str) -> GatewayError:
        """Worth another try when those that wait now have had their turn, which takes as long as it last did."""
        wait_s = min(max(1.0, self._last_wait_s), self._admission.queue_wait_s)
        text = f"The model '{self._model}' {what}: it is asked for more than it can do. Please try again later."
        return Overloaded(text, wait_s=wait_s)

    def _note_depth(self) -> None:
        self._admission.metrics.note_waiting(self._model, self._waiting.count)
