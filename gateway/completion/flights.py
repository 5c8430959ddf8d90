"""The flights of one worker: those that it makes, those of other workers that it follows, and who follows which."""

import asyncio
import time

import orjson

from gateway.cache.claim import Claim
from gateway.cache.exact import ExactCache
from gateway.cache.mail import Mail
from gateway.completion.flight import Flight, FlightLost
from gateway.completion.remote_flight import Follower, Lead, NoSuchFlight

TICK_S = 1.0
# Who has said nothing for so long is not there any more.
SILENT_S = 3.5


class Flights:
    """
    Args:
        cache: where the claims are.
        mail: to and from other workers.
    """

    def __init__(self, cache: ExactCache, mail: Mail) -> None:
        self._cache = cache
        self._mail = mail
        self._open: set[Flight] = set()
        self._latest: dict[str, Flight] = {}
        self._leads: dict[Flight, Lead] = {}

    @property
    def worker(self) -> str:
        """What claims call this one."""
        return self._mail.worker

    def joinable(self, key: str) -> Flight | None:
        """The flight of an answer, if its beginning is still there."""
        flight = self._latest.get(key)
        return flight if flight is not None and flight.joinable else None

    def add(self, flight: Flight, *, listed: bool = True) -> None:
        """One that this worker makes; others can join it if it is listed."""
        self._open.add(flight)
        if listed:
            self._latest[flight.key] = flight

    def follow(self, key: str, claim: Claim) -> Flight | None:
        """One that another worker makes; None while it could not tell us."""
        if not self._mail.open:
            return None
        flight = Flight(key, claim, self._cache.max_bytes, stream=claim.stream, usage=claim.usage)
        self._leads[flight] = lead = Lead(self._mail, flight, claim)
        self.add(flight)
        lead.ask(again=True)
        return flight

    def leave(self, flight: Flight) -> None:
        """One request of this worker does not want it any more; what nobody wants ends."""
        flight.members -= 1
        if not flight.wanted:
            self._stop(flight)

    def forget(self, flight: Flight) -> None:
        """Nobody joins it any more."""
        self._open.discard(flight)
        if self._latest.get(flight.key) is flight:
            del self._latest[flight.key]

    def _stop(self, flight: Flight) -> None:
        if flight.task is None:
            self.forget(flight)
            self._leads.pop(flight).leave()
        elif not flight.ended:  # else it closes by itself
            self.forget(flight)
            flight.task.cancel()

    async def run(self) -> None:
        """Writes to other workers, and reads what they write, until cancelled; then ends what still flies."""
        async with asyncio.TaskGroup() as background:
            mail = background.create_task(self._mail.run(self._read, self._ask_again))
            try:
                while True:
                    await asyncio.sleep(TICK_S)
                    self._tick(time.monotonic())
            finally:
                tasks = [flight.task for flight in self._open if flight.task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                mail.cancel()

    def _tick(self, now: float) -> None:
        for flight in tuple(self._open):
            lead = self._leads.get(flight)
            if lead is None:
                self._tend(flight, now)
            elif now - lead.heard_at > SILENT_S:
                flight.end(FlightLost())
            elif not flight.ended:
                lead.ask(again=False)

    def _tend(self, flight: Flight, now: float) -> None:
        if flight.claim is not None:
            self._cache.renew(flight.key)
        for worker, watcher in tuple(flight.watchers.items()):
            if now - watcher.heard_at > SILENT_S:
                self._left(flight, worker)
            else:
                watcher.tell()

    def _left(self, flight: Flight, worker: str) -> None:
        if flight.watchers.pop(worker, None) is not None and not flight.wanted:
            self._stop(flight)

    def _ask_again(self) -> None:
        for lead in self._leads.values():
            lead.ask(again=True)

    def _read(self, letter: bytes) -> None:
        head, _, body = letter.partition(b"\n")
        kind, key, name, *rest = orjson.loads(head)
        flight = self._find(key, name)
        if kind == "news":
            since, to, ended, error = rest
            if flight is not None and flight in self._leads:
                self._leads[flight].read(since, to, ended, error, body)
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
            watcher = flight.watchers[worker] = Follower(self._mail, flight, worker, have)
        elif again:
            watcher.sent = have
        watcher.heard_at = time.monotonic()
        watcher.tell()

    def _find(self, key: str, name: str) -> Flight | None:
        """The flight that letters call so: mostly the latest, but one that is too long to join may be followed."""
        latest, data = self._latest.get(key), name.encode()
        if latest is not None and latest.claim is not None and latest.claim.data == data:
            return latest
        return next((flight for flight in self._open if flight.claim is not None and flight.claim.data == data), None)
