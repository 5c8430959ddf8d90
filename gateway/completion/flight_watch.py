"""Keeps the flights of one worker going: renews their claims, and writes to other workers and reads what they write."""

import asyncio
import time

import orjson

from gateway.cache.exact import ExactCache
from gateway.cache.mail import Mail
from gateway.completion.flight import Flight, FlightLost
from gateway.completion.flights import Flights
from gateway.completion.remote_flight import Follower, NoSuchFlight

TICK_S = 1.0
# Who has said nothing for so long is not there any more.
SILENT_S = 3.5


class FlightWatch:
    """
    Args:
        cache, mail: as of the flights.
    """

    def __init__(self, flights: Flights, cache: ExactCache, mail: Mail) -> None:
        self._flights = flights
        self._cache = cache
        self._mail = mail

    async def run(self) -> None:
        """Until cancelled; then ends what still flies."""
        async with asyncio.TaskGroup() as background:
            mail = background.create_task(self._mail.run(self._read, self._ask_again))
            try:
                while True:
                    await asyncio.sleep(TICK_S)
                    self._tick(time.monotonic())
            finally:
                tasks = [flight.task for flight in self._flights.open if flight.task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                mail.cancel()

    def _tick(self, now: float) -> None:
        for flight in tuple(self._flights.open):
            lead = self._flights.leads.get(flight)
            if lead is None:
                self._tend(flight, now)
            elif now - lead.heard_at > SILENT_S:
                flight.end(FlightLost())
            elif not flight.ended:
                lead.ask(again=False)

    def _tend(self, flight: Flight, now: float) -> None:
        if flight.claim is not None and flight.joinable:
            self._cache.renew(flight.key)
        for worker, watcher in tuple(flight.watchers.items()):
            if now - watcher.heard_at > SILENT_S:
                self._left(flight, worker)
            else:
                watcher.tell()

    def _left(self, flight: Flight, worker: str) -> None:
        if flight.watchers.pop(worker, None) is not None and not flight.wanted:
            self._flights.stop(flight)

    def _ask_again(self) -> None:
        for lead in self._flights.leads.values():
            lead.ask(again=True)

    def _read(self, letter: bytes) -> None:
        head, _, body = letter.partition(b"\n")
        kind, key, name, *rest = orjson.loads(head)
        flight = self._flights.find(key, name)
        if kind == "news":
            since, to, ended, error = rest
            if flight is not None and flight in self._flights.leads:
                self._flights.leads[flight].read(since, to, ended, error, body)
            return
        worker, have, again = rest
        if flight is None or flight.task is None:
            self._mail.send(NoSuchFlight(worker, key, name))
        elif have is None:
            self._left(flight, worker)
        else:
            self._followed(flight, worker, have, again)

    def _followed(self, flight: Flight, worker: str, have: int, again: bool) -> None:
        watcher = flight.watchers.get(worker)
        if watcher is None:
            if not have and not flight.joinable:
                self._mail.send(NoSuchFlight(worker, flight.key, flight.claim.name if flight.claim else ""))
                return
            watcher = Follower(self._mail, flight, worker, have)
            flight.watch(worker, watcher)
        elif again:
            watcher.sent = have
        watcher.heard_at = time.monotonic()
        watcher.tell()
