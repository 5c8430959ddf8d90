"""The completion path: the only code that calls an engine, whichever door the request came through.

catalog > context window > metering > caching > single-flight > dispatch
"""

import functools

from gateway.completion.answer import Answer
from gateway.completion.caching import BYPASS, Caching, Lookup
from gateway.completion.catalog import Catalog
from gateway.completion.dispatch import Dispatch
from gateway.completion.fallbacks import Fallbacks
from gateway.completion.metering import Bill, Metering
from gateway.completion.request import Call
from gateway.completion.shared import Asked
from gateway.completion.singleflight import SingleFlight
from gateway.context import RequestContext
from gateway.errors import InvalidRequest
from gateway.routing.pool import Pool


class CompletionPath:
    """From a validated call to an answer that has begun."""

    def __init__(
        self,
        catalog: Catalog,
        fallbacks: Fallbacks,
        metering: Metering,
        caching: Caching,
        flights: SingleFlight,
        dispatch: Dispatch,
    ) -> None:
        self.catalog = catalog
        self._fallbacks = fallbacks
        self._metering = metering
        self._caching = caching
        self._flights = flights
        self._dispatch = dispatch

    async def send(self, call: Call, context: RequestContext) -> Answer:
        """Returns once the answer has begun: status and headers, and the first event of a stream.

        Raises:
            GatewayError: what went wrong, before anything was sent to the client.
        """
        pool = self.catalog.model(call.model, context)
        _check_task(call, pool)
        pool = self._fallbacks.that_fits(call, pool, context)
        lookup = self._caching.begin(call, context, pool.revision)
        # Mostly nobody has to be asked, which takes no coroutine to find out.
        try:
            bill = self._metering.admit_at_once(pool, context) or await self._metering.admit(call, pool, context)
        except BaseException:
            if lookup is not None:
                lookup.drop()
            raise
        if lookup is not None:
            answer = await self._answer(call, pool, context, lookup, bill)
        else:
            try:
                answer = await self._dispatch.begin(call, pool, context, bill.ended)
            except BaseException:
                bill.cancel()
                raise
            if self._caching.cache.on:
                answer.headers = (*answer.headers, BYPASS)
        if bill.headers:
            answer.headers = (*answer.headers, *bill.headers)
        return answer

    async def _answer(self, call: Call, pool: Pool, context: RequestContext, lookup: Lookup, bill: Bill) -> Answer:
        """Out of the cache, or from a flight; the bill is told what was used, or is cancelled."""
        try:
            cached = await lookup.answer()
        except BaseException:
            bill.cancel()
            raise
        if cached is None:
            generate = functools.partial(self._dispatch.begin, call, pool, context, bill.ended)
            return await self._flights.answer(Asked(lookup, generate, bill))
        if bill.ended is not None:
            bill.ended(cached.usage)
        return cached


def _check_task(call: Call, pool: Pool) -> None:
    """Raises InvalidRequest when the model is for other endpoints."""
    if pool.tasks and call.task not in pool.tasks:
        raise InvalidRequest(f"The model '{pool.model}' does not serve {call.endpoint}.", param="model")
