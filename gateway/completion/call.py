"""The completion path: the only code that calls an engine, whichever door the request came through.

catalog > context window > metering > caching > single-flight > dispatch
"""

from functools import partial

from gateway.completion.answer import Answer
from gateway.completion.caching import BYPASS, Caching
from gateway.completion.catalog import Catalog
from gateway.completion.dispatch import Dispatch
from gateway.completion.fallbacks import Fallbacks
from gateway.completion.metering import Metering
from gateway.completion.request import Call
from gateway.completion.shared import Asked
from gateway.completion.singleflight import Caller, SingleFlight
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

    async def send(self, call: Call, context: RequestContext, caller: Caller | None = None) -> Answer:
        """Returns once the answer has begun: status and headers, and the first event of a stream.

        Args:
            caller: where the request's task may go on behind its client, for others who want the same answer.

        Raises:
            GatewayError: what went wrong, before anything was sent to the client.
        """
        pool = self._pool(call, context)
        lookup = self._caching.begin(call, context, pool)
        # Mostly nobody has to be asked, which takes no coroutine to find out.
        try:
            bill = self._metering.admit_at_once(pool, context) or await self._metering.admit(call, pool, context)
        except BaseException:
            if lookup is not None:
                lookup.drop()
            raise
        if lookup is not None:
            generate = partial(self._dispatch.begin, call, pool, context, bill.ended)
            answer = await lookup.answer(bill) or await self._flights.answer(Asked(lookup, generate, bill), caller)
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

    def _pool(self, call: Call, context: RequestContext) -> Pool:
        pool = self.catalog.model(call.model, context)
        _check_task(call, pool)
        return self._fallbacks.that_fits(call, pool, context)


def _check_task(call: Call, pool: Pool) -> None:
    """Raises InvalidRequest when the model is for other endpoints."""
    if pool.tasks and call.task not in pool.tasks:
        raise InvalidRequest(f"The model '{pool.model}' does not serve {call.endpoint}.", param="model")
