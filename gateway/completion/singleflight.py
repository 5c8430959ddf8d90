"""Single-flight: who asks for what is being made already, on any worker, gets that answer, from its beginning.

A request that finds no answer in the cache, and nobody's claim to make it, makes it: in its own task, which goes on
behind its client as long as anybody else wants it, or in one for that, where the request's is not ours to keep. Who
finds a claim of another worker asks that one for what it has, and gets the rest as it comes. Nothing is sent before
somebody asks.

A flight that is lost (its worker died, its machine is away, nobody wanted it any more) is taken over by one of those
who follow it; the others follow that one. Without Redis only the requests of one worker share.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from gateway.cache.claim import Claim
from gateway.cache.exact import ExactCache
from gateway.completion.answer import Answer
from gateway.completion.cached import serves
from gateway.completion.caching import MISS, Lookup
from gateway.completion.flight import Flight, FlightLost
from gateway.completion.flights import Flights
from gateway.completion.led import LedAnswer
from gateway.completion.shared import Asked, SharedAnswer
from gateway.errors import GatewayError, NoReplica

log = logging.getLogger(__name__)

_TRIES = 3


class Caller(Protocol):
    """Whose request runs in a task that is ours to keep.

    Attributes:
        on_leave: called when its client leaves, in the place of the task's cancellation.
    """

    on_leave: Callable[[], None] | None


class SingleFlight:
    """
    Args:
        cache: whose answers, claims and bounds these are.
        flights: this worker's.
    """

    def __init__(self, cache: ExactCache, flights: Flights) -> None:
        self._cache = cache
        self._flights = flights

    def answer(self, asked: Asked, caller: Caller | None = None) -> Awaitable[Answer]:
        """From a flight.

        Raises:
            GatewayError: as whoever makes the answer, for the second time where that was somebody else.
        """
        return self._board(asked, caller, tries=1)

    def _board(self, asked: Asked, caller: Caller | None, tries: int) -> Awaitable[Answer]:
        """From a flight that is there already, or a new one."""
        shares = tries < _TRIES and asked.lookup.shares
        flight = self._other(asked) if shares else None
        if flight is not None:
            flight.join()
            return self._follow(flight, asked, caller, tries)
        flight = self._begin(asked, listed=shares)
        if caller is None:
            flight.task = asyncio.create_task(self._fly(flight, asked))
            return self._led(flight, asked)
        flight.task, caller.on_leave = asyncio.current_task(), partial(self._flights.leave, flight)
        return self._lead(flight, asked)

    async def _follow(self, flight: Flight, asked: Asked, caller: Caller | None, tries: int) -> Answer:
        """The answer for who found it being made."""
        failure: BaseException | None = None
        try:
            await flight.begun()
        except BaseException as error:  # noqa: BLE001  # raised below
            failure = error
        if failure is None and not flight.foreign:
            return self._shared(flight, asked, leads=False)
        self._flights.leave(flight)
        if failure is None:
            return await self._again(asked, flight, caller, _TRIES)
        if isinstance(failure, FlightLost if tries > 1 else (FlightLost, GatewayError)):
            return await self._again(asked, flight, caller, tries)
        asked.bill.cancel()
        raise failure

    async def _again(self, asked: Asked, lost: Flight, caller: Caller | None = None, tries: int = 0) -> Answer:
        """As the cache has it by now, or from another flight than the one that was lost."""
        cached = await asked.lookup.again(lost.claim, asked.bill)
        return cached or await self._board(asked, caller, tries + 1)

    async def _led(self, flight: Flight, asked: Asked) -> Answer:
        """The answer for the one it was begun for, where a task of its own makes it."""
        try:
            await flight.begun()
        except BaseException as error:
            self._flights.leave(flight)
            if isinstance(error, FlightLost):
                raise NoReplica("The gateway stopped before the answer was there. Please try again.") from error
            raise
        return self._shared(flight, asked, leads=True)

    def _shared(self, flight: Flight, asked: Asked, *, leads: bool) -> Answer:
        return SharedAnswer(flight, asked, leads=leads, leave=self._flights.leave, again=self._again)

    def _other(self, asked: Asked) -> Flight | None:
        """The flight that was begun for somebody else, here or elsewhere, if it says all that is asked for."""
        lookup, holder, flights = asked.lookup, asked.lookup.holder, self._flights
        flight = flights.joinable(lookup.key)
        if flight is not None and _outranks(lookup, flight):
            return None
        if flight is None and holder is not None and holder.worker != flights.worker and serves(holder, lookup.call):
            flight = flights.follow(lookup.key, holder)
        return flight if flight is not None and serves(flight, lookup.call) else None

    def _begin(self, asked: Asked, *, listed: bool) -> Flight:
        """A new one, which its request wants."""
        lookup, call, holder = asked.lookup, asked.lookup.call, asked.lookup.holder
        claim = lookup.claim if holder is None else self._left(holder, lookup)
        flight = Flight(lookup.key, claim, self._cache.max_bytes, stream=call.stream, usage=call.wants_usage)
        flight.batch = lookup.batch
        flight.join()
        latest = self._flights.joinable(lookup.key)
        self._flights.add(flight, listed=listed and (latest is None or _outranks(lookup, latest)))
        return flight

    def _left(self, holder: Claim, lookup: Lookup) -> Claim | None:
        """The claim, if a request of this worker has left it that has gone since: it is as good as a new one.

        One that is too long to join may still fly under it, and is what other workers mean by it.
        """
        if holder.worker != self._flights.worker or not lookup.shares:
            return None
        if (holder.stream, holder.usage) != (lookup.call.stream, lookup.call.wants_usage):
            return None
        return holder if self._flights.find(lookup.key, holder.name) is None else None

    async def _lead(self, flight: Flight, asked: Asked) -> Answer:
        """The answer as it begins; a whole one is all of the flight."""
        try:
            answer = await asked.generate()
        except BaseException as error:
            asked.bill.cancel()
            self._fail(flight, error)
            raise
        asked.lookup.note("miss")
        flight.headers, flight.waited_s = answer.headers, answer.waited_s
        if answer.foreign or answer.updated:
            self._flights.close(flight, foreign=answer.foreign)
        if answer.stream:
            complete = partial(self._complete, flight, asked, answer)
            return LedAnswer(answer, flight, complete, partial(self._fail, flight))
        failure: BaseException | None = None
        try:
            flight.write(await answer.body())
            self._complete(flight, asked, answer)
        except BaseException as error:  # noqa: BLE001  # raised below: CONTRIBUTING.md says why not from in here
            failure = error
        if failure is not None:
            self._fail(flight, failure)
            await answer.aclose()
            raise failure
        answer.headers = (*answer.headers, MISS)
        return answer

    async def _fly(self, flight: Flight, asked: Asked) -> None:
        """The same in a task for that, to the end; everybody who waits is told how it goes."""
        answer, stopped = None, None
        try:
            answer = await self._lead(flight, asked)
            if isinstance(answer, LedAnswer):
                await answer.make()
        except GatewayError as error:
            log.debug("a generation ended in %s", error)
        except Exception:
            log.exception("a generation failed")
        except asyncio.CancelledError as error:
            stopped = error
        if answer is not None:
            await answer.aclose()
        if stopped is not None:
            raise stopped

    def _complete(self, flight: Flight, asked: Asked, answer: Answer) -> None:
        """All of it is there. Nobody who asks this model again should get another's word for it: that is not kept."""
        entry = None if answer.foreign or answer.updated else flight.entry()
        kept = entry is not None and asked.lookup.keep(entry)
        flight.end()
        self._flights.forget(flight)
        if flight.claim is not None and not kept:
            self._cache.release(flight.key, flight.claim)

    def _fail(self, flight: Flight, failure: BaseException) -> None:
        if isinstance(failure, GatewayError | FlightLost):
            flight.end(failure)
        else:
            flight.end(GatewayError("Internal error.") if isinstance(failure, Exception) else FlightLost())
        self._flights.forget(flight)
        if flight.claim is not None:
            self._cache.release(flight.key, flight.claim)


def _outranks(lookup: Lookup, flight: Flight) -> bool:
    """Whether the request would wait longer with the flight than for an answer of its own."""
    return flight.batch and not flight.next and not lookup.batch
