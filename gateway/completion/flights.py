"""The flights of one worker: those that it makes, and those of other workers that it follows."""

from gateway.cache.claim import Claim
from gateway.cache.exact import ExactCache
from gateway.cache.mail import Mail
from gateway.completion.flight import Flight
from gateway.completion.remote_flight import Lead


class Flights:
    """
    Args:
        cache: where the claims are.
        mail: to and from other workers.

    Attributes:
        open: those that somebody may still want.
        leads: who makes those that are followed.
    """

    def __init__(self, cache: ExactCache, mail: Mail) -> None:
        self.open: set[Flight] = set()
        self.leads: dict[Flight, Lead] = {}
        self._cache = cache
        self._mail = mail
        self._latest: dict[str, Flight] = {}

    @property
    def worker(self) -> str:
        """What claims call this one."""
        return self._mail.worker

    def joinable(self, key: str) -> Flight | None:
        """The flight of an answer, if its beginning is still there."""
        flight = self._latest.get(key)
        return flight if flight is not None and flight.joinable else None

    def find(self, key: str, name: str) -> Flight | None:
        """The flight that letters call so: mostly the latest, but one that is too long to join may be followed."""
        latest, data = self._latest.get(key), name.encode()
        if latest is not None and latest.claim is not None and latest.claim.data == data:
            return latest
        return next((flight for flight in self.open if flight.claim is not None and flight.claim.data == data), None)

    def add(self, flight: Flight, *, listed: bool = True) -> None:
        """One that this worker makes; others can join it if it is listed."""
        self.open.add(flight)
        if listed:
            self._latest[flight.key] = flight

    def follow(self, key: str, claim: Claim) -> Flight | None:
        """One that another worker makes; None while it could not tell us."""
        if not self._mail.open:
            return None
        flight = Flight(key, claim, self._cache.max_bytes, stream=claim.stream, usage=claim.usage)
        self.leads[flight] = lead = Lead(self._mail, flight, claim)
        self.add(flight)
        lead.ask(again=True)
        return flight

    def leave(self, flight: Flight) -> None:
        """One request of this worker does not want it any more; what nobody wants ends."""
        flight.members -= 1
        if not flight.wanted:
            self.stop(flight)

    def stop(self, flight: Flight) -> None:
        """Nobody wants it any more."""
        if flight.task is None:
            self.forget(flight)
            self.leads.pop(flight).leave()
        elif not flight.ended:  # else it closes by itself
            self.forget(flight)
            flight.task.cancel()

    def close(self, flight: Flight, *, foreign: bool) -> None:
        """Nobody joins it any more, on any worker; of a foreign one, who has joined hears that it is lost."""
        flight.closed, flight.foreign = True, foreign
        if flight.claim is not None:
            self._cache.release(flight.key, flight.claim)
        if foreign:
            for watcher in flight.watchers.values():
                watcher.tell()
            flight.watchers.clear()
            if not flight.wanted:
                self.stop(flight)

    def forget(self, flight: Flight) -> None:
        """Nobody joins it any more."""
        self.open.discard(flight)
        if self._latest.get(flight.key) is flight:
            del self._latest[flight.key]
