"""Whether a part of the gateway works on Redis: one line when that changes, and a gauge."""

import logging

from gateway.metrics import Metrics
from gateway.redis_link import RedisLink


class RedisPart:
    """
    Args:
        name: the gauge's label `part`.
        log: of the part's module.
        works, fails: what a line says in either case; the reason follows.
        link: what it asks over, where that is the link that all share.
    """

    def __init__(
        self, name: str, metrics: Metrics, log: logging.Logger, works: str, fails: str, link: RedisLink | None = None
    ) -> None:
        self._name = name
        self._metrics = metrics
        self._log = log
        self._words = {True: works, False: fails}
        self._link = link
        self._state: bool | None = None

    @property
    def working(self) -> bool:
        """Whether Redis did what it was asked for last."""
        return self._state is not False

    def works(self) -> None:
        # A reply may be read after its connection was lost, and after others have heard of that.
        if self._state is not True and (self._link is None or self._link.live):
            self._change(True, "Redis answers")

    def fails(self, reason: object) -> None:
        if self._state is not False:
            # Where a command is unknown, Redis repeats its arguments: with AUTH and HELLO, the password.
            self._change(False, str(reason).partition(", with args")[0] or type(reason).__name__)

    def _change(self, state: bool, reason: str) -> None:
        if self._state is not None or not state:  # that it works from the start is no news
            self._log.log(logging.INFO if state else logging.WARNING, "%s (%s)", self._words[state], reason)
        self._state = state
        self._metrics.redis_parts.labels(self._name).set(state)
