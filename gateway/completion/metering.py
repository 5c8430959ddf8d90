"""What a key may use and what it has used: asked before an answer begins, told when it has ended."""

from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.limits.requests import RequestLimits
from gateway.limits.reservations import Reservation, Reservations
from gateway.limits.told import Headers
from gateway.limits.usage import Ended, Ledger
from gateway.routing.pool import Pool
from gateway.upstream.usage import Usage


class Bill:
    """One admitted answer.

    Attributes:
        ended: to be told once what was used; None where nobody wants to know.
        headers: what the answer tells of the key's limits.
    """

    __slots__ = ("_reservation", "ended", "headers")

    def __init__(self, ended: Ended | None, headers: Headers, reservation: Reservation | None = None) -> None:
        self.ended = ended
        self.headers = headers
        self._reservation = reservation

    def saved(self, usage: Usage) -> None:
        """No engine had to work for it."""
        if self.ended is not None:
            self.ended(usage)

    def cancel(self) -> None:
        """No answer began: what was reserved is given back."""
        if self._reservation is not None:
            self._reservation.settle(0)


class Metering:
    def __init__(self, limits: RequestLimits, reservations: Reservations, ledger: Ledger) -> None:
        self._limits = limits
        self._reservations = reservations
        self._ledger = ledger

    def admit_at_once(self, pool: Pool, context: RequestContext) -> Bill | None:
        """What `admit` would return or raise, where nobody has to be asked for it; else None."""
        if context.quota is not None or (headers := self._limits.admit_at_once(context)) is None:
            return None
        return Bill(self._ledger.open(context, pool.model, None), headers)

    async def admit(self, call: Call, pool: Pool, context: RequestContext) -> Bill:
        """What `admit_at_once` said None to. Raises RateLimited or OverBudget when a limit of the key is in the way."""
        if context.quota is None:
            headers = await self._limits.ask(context)
            return Bill(self._ledger.open(context, pool.model, None), headers)
        reservation = self._reservations.begin(context, context.quota, call.most_tokens(pool.max_model_len))
        try:
            headers = await self._limits.admit(context)
            headers += await reservation.granted()
        except BaseException:
            reservation.settle(0)
            raise
        return Bill(self._ledger.open(context, pool.model, reservation.settle), headers, reservation)
