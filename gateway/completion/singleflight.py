"""Single-flight: who asks for what is being made already, on any worker, gets that answer, from its beginning.

A worker that finds no answer in the cache, and nobody's claim to make it, makes it in a task of its own, which goes on
as long as anybody wants it. Who finds a claim of another worker asks that one for what it has, and gets the rest as it
comes. Nothing is sent before somebody asks.

A flight that is lost (its worker died, its machine is away, nobody wanted it any more) is taken over by one of those
who follow it; the others follow that one. Without Redis only the requests of one worker share.
"""

import asyncio
import logging

from gateway.cache.exact import ExactCache
from gateway.completion.answer import Answer
from gateway.completion.cached import serves
from gateway.completion.flight import Flight, FlightLost
from gateway.completion.flights import Flights
from gateway.completion.shared import Asked, SharedAnswer
from gateway.errors import GatewayError, NoReplica

log = logging.getLogger(__name__)

_TRIES = 3


class SingleFlight:
    """
    Args:
        cache: whose answers, claims and bounds these are.
        flights: this worker's.
    """

    def __init__(self, cache: ExactCache, flights: Flights) -> None:
        self._cache = cache
        self._flights = flights

    async def answer(self, asked: Asked, lost: Flight | None = None) -> Answer:
        """From a flight; or as the cache has it by now, where this request was on one that was `lost`.

        Raises:
            GatewayError: as whoever makes the answer, for the second time where that was somebody else.
        """
        tries, leads = 0, False
        try:
            while True:
                if lost is not None and (cached := await asked.lookup.again(lost.claim)) is not None:
                    if asked.bill.ended is not None:
                        asked.bill.ended(cached.usage)
                    return cached
                tries += 1
                flight, leads = self._board(asked, alone=tries == _TRIES)
                try:
                    await flight.begun()
                except BaseException as error:
                    self._flights.leave(flight)
                    if leads or not isinstance(error, FlightLost if tries > 1 else (FlightLost, GatewayError)):
                        raise
                    lost = flight
                else:
                    return SharedAnswer(flight, asked, leads=leads, leave=self._flights.leave, again=self.answer)
        except BaseException as error:
            if not leads:
                asked.bill.cancel()
            if isinstance(error, FlightLost):
                raise NoReplica("The gateway stopped before the answer was there. Please try again.") from error
            raise

    def _board(self, asked: Asked, *, alone: bool) -> tuple[Flight, bool]:
        """The flight for a request, and whether it was begun for it."""
        flight = None if alone or not asked.lookup.shares else self._other(asked)
        leads = flight is None
        if flight is None:
            flight = self._begin(asked, listed=not alone and asked.lookup.shares)
        flight.join()
        return flight, leads

    def _other(self, asked: Asked) -> Flight | None:
        """The flight that was begun for somebody else, here or elsewhere, if it says all that is asked for."""
        lookup, holder, flights = asked.lookup, asked.lookup.holder, self._flights
        flight = flights.joinable(lookup.key)
        if flight is None and holder is not None and holder.worker != flights.worker and serves(holder, lookup.call):
            flight = flights.follow(lookup.key, holder)
        return flight if flight is not None and serves(flight, lookup.call) else None

    def _begin(self, asked: Asked, *, listed: bool) -> Flight:
        lookup, call, holder = asked.lookup, asked.lookup.call, asked.lookup.holder
        claim = lookup.claim if holder is None else None
        if holder is not None and holder.worker == self._flights.worker and lookup.shares:
            # Left by a request that has gone since, and as good as a new one for the same kind of answer.
            claim = holder if (holder.stream, holder.usage) == (call.stream, call.wants_usage) else None
        flight = Flight(lookup.key, claim, self._cache.max_bytes, stream=call.stream, usage=call.wants_usage)
        flight.task = asyncio.create_task(self._fly(flight, asked))
        self._flights.add(flight, listed=listed and self._flights.joinable(lookup.key) is None)
        return flight

    async def _fly(self, flight: Flight, asked: Asked) -> None:
        """The generation, for as long as anybody wants it."""
        kept, stopped = False, None
        try:
            kept = await self._generate(flight, asked)
        except GatewayError as error:
            flight.end(error)
        except Exception:  # everybody who waits is told
            log.exception("a generation failed")
            flight.end(GatewayError("Internal error."))
        except asyncio.CancelledError as error:
            flight.end(FlightLost())
            stopped = error
        self._flights.forget(flight)
        if flight.claim is not None and not kept:
            await self._cache.take(flight.key, flight.claim, None)
        if stopped is not None:
            raise stopped

    async def _generate(self, flight: Flight, asked: Asked) -> bool:
        """Returns whether the answer was kept."""
        try:
            answer = await asked.generate()
        except BaseException:
            asked.bill.cancel()
            raise
        kept, failure = False, None
        try:
            flight.headers, flight.waited_s = answer.headers, answer.waited_s
            if answer.stream:
                await answer.relay(flight)
            else:
                flight.write(await answer.body())
            # Nobody who asks this model again should get another's word for it.
            entry = None if answer.foreign else flight.entry()
            kept = entry is not None and asked.lookup.keep(entry)
            flight.end()
        except BaseException as error:  # noqa: BLE001  # raised below: CONTRIBUTING.md says why not in a `finally`
            failure = error
        await answer.aclose()
        if failure is not None:
            raise failure
        return kept
