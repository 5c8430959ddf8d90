"""A flight that another worker follows: the letters of both sides.

    follow   JSON ["follow", key, claim, worker, have, again], from a follower: now and then, and where something is
             missing; `have` is null when nobody follows there any more
    news     JSON ["news", key, claim, from, to, ended, error], a line break and those parts, from who makes the answer:
             now and then, and when there are some

`error` is null, "lost" or the fields of a GatewayError.
"""

import asyncio
import time
from typing import Any

import orjson

from gateway.cache.claim import Claim
from gateway.cache.mail import Mail
from gateway.completion.flight import Flight, FlightLost
from gateway.errors import GatewayError

# How long the first letter may take: whoever makes the answer writes one at once, also while there is nothing to tell.
FIRST_WORD_S = 0.2
_LOST = "lost"
_ERROR_FIELDS = ("status", "type", "code", "message", "param", "headers")


class Follower:
    """Another worker that follows a flight of this one, a Watcher of it. `have`: the parts it has got already."""

    def __init__(self, mail: Mail, flight: Flight, worker: str, have: int) -> None:
        self.to = worker
        self.heard_at = time.monotonic()
        self.sent = have
        self._name = flight.claim.name if flight.claim is not None else ""
        self._mail = mail
        self._flight = flight

    def tell(self) -> None:
        self._mail.send(self)

    def text(self) -> bytes:
        flight, since = self._flight, self.sent
        error: GatewayError | FlightLost | None = flight.error
        ended, data = flight.ended, b""
        try:
            data = flight.since(since)
        except GatewayError as behind:
            ended, error = True, behind
        if flight.foreign or len(data) > flight.max_bytes:  # a whole answer of a size that nobody asked Redis to carry
            ended, error, data = True, FlightLost(), b""
        self.sent = flight.next
        return _news(flight.key, self._name, since, self.sent, ended, _told(error), data)

    def refused(self) -> None:
        self.heard_at = 0.0


class Lead:
    """The worker that makes the answer of a flight that this one follows."""

    def __init__(self, mail: Mail, flight: Flight, claim: Claim) -> None:
        self.to = claim.worker
        self.heard_at = time.monotonic()
        self._name = claim.name
        self._mail = mail
        self._flight = flight
        self._have: int | None = 0
        self._again = True
        self._unheard = asyncio.get_running_loop().call_later(FIRST_WORD_S, self._give_up)

    def ask(self, *, again: bool) -> None:
        """Says that this worker follows; `again` from the part on that it has not got yet."""
        self._again = self._again or again
        self._mail.send(self)

    def leave(self) -> None:
        """Says that this worker does not follow any more, unless there is nothing to follow."""
        self._unheard.cancel()
        if not self._flight.ended:
            self._have = None
            self._mail.send(self)

    def read(self, since: int, to: int, ended: bool, error: Any, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self._unheard.cancel()
        if error == _LOST:
            self._flight.end(FlightLost())
        elif since == self._have:
            self._have = to
            if data:
                self._flight.write(data)
            if ended:
                self._flight.end(_error(error))
        elif self._have is not None and (to > self._have or ended):
            self.ask(again=True)

    def text(self) -> bytes:
        again, self._again = self._again, False
        return orjson.dumps(["follow", self._flight.key, self._name, self._mail.worker, self._have, again])

    def refused(self) -> None:
        self._flight.end(FlightLost())

    def _give_up(self) -> None:
        """Redis may be away, or that worker: its claim alone is no reason to wait."""
        self.leave()
        self._flight.end(FlightLost())


class NoSuchFlight:
    """The answer to who follows what is not there."""

    def __init__(self, worker: str, key: str, name: str) -> None:
        self.to = worker
        self._key = key
        self._name = name

    def text(self) -> bytes:
        return _news(self._key, self._name, 0, 0, True, _LOST, b"")

    def refused(self) -> None:
        """It is gone as well."""


def _news(key: str, name: str, since: int, to: int, ended: bool, error: Any, data: bytes) -> bytes:
    return orjson.dumps(["news", key, name, since, to, ended, error]) + b"\n" + data


def _told(error: GatewayError | FlightLost | None) -> Any:
    if isinstance(error, GatewayError):
        return {name: getattr(error, name) for name in _ERROR_FIELDS}
    return _LOST if error is not None else None


def _error(told: Any) -> GatewayError | None:
    if told is None:
        return None
    error = GatewayError(told["message"], param=told["param"])
    error.status, error.type, error.code, error.headers = (told[name] for name in ("status", "type", "code", "headers"))
    return error
