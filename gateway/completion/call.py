"""The completion path: the only code that calls an engine, whichever door the request came through.

catalog > context window > metering > caching > dispatch
"""

from gateway.completion.answer import Answer
from gateway.completion.caching import Caching, Lookup
from gateway.completion.catalog import Catalog
from gateway.completion.context_window import check_fits
from gateway.completion.dispatch import Dispatch
from gateway.completion.metering import Metering
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.errors import InvalidRequest
from gateway.limits.usage import Ended
from gateway.routing.pool import Pool


class CompletionPath:
    """From a validated call to an answer that has begun."""

    def __init__(self, catalog: Catalog, metering: Metering, caching: Caching, dispatch: Dispatch) -> None:
        self.catalog = catalog
        self._metering = metering
        self._caching = caching
        self._dispatch = dispatch

    async def send(self, call: Call, context: RequestContext) -> Answer:
        """Returns once the answer has begun: status and headers, and the first event of a stream.

        Raises:
            GatewayError: what went wrong, before anything was sent to the client.
        """
        pool = self.catalog.model(call.model, context)
        _check_task(call, pool)
        check_fits(call, pool.max_model_len)
        lookup = self._caching.begin(call, context, pool.revision)
        bill = await self._metering.admit(call, pool, context)
        try:
            answer = await self._answer(call, pool, context, lookup, bill.ended)
        except BaseException:
            bill.cancel()
            raise
        if bill.headers:
            answer.headers = (*answer.headers, *bill.headers)
        return answer

    async def _answer(
        self, call: Call, pool: Pool, context: RequestContext, lookup: Lookup | None, ended: Ended | None
    ) -> Answer:
        """Out of the cache, or from an engine; `ended` is told what was used."""
        if lookup is None:
            return self._caching.bypassed(await self._dispatch.begin(call, pool, context, ended))
        cached = await lookup.answer()
        if cached is None:
            return lookup.keep(await self._dispatch.begin(call, pool, context, ended))
        if ended is not None:
            ended(cached.usage)
        return cached


def _check_task(call: Call, pool: Pool) -> None:
    """Raises InvalidRequest when the model is for other endpoints."""
    if pool.tasks and call.endpoint.task not in pool.tasks:
        raise InvalidRequest(f"The model '{pool.model}' does not serve {call.endpoint}.", param="model")
