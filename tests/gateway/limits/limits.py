"""What the tests of limits share: callers, and workers that admit them."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.context import RequestContext
from gateway.errors import RateLimited
from gateway.limits.requests import RequestLimits
from gateway.metrics import Metrics


def caller(limit: int | None, tenant: str = "team", key: str = "key") -> RequestContext:
    return RequestContext("r-1", tenant, key, requests_per_minute=limit)


@dataclass
class Worker:
    limits: RequestLimits
    metrics: Metrics

    async def granted(self, who: RequestContext, count: int) -> int:
        """How many of `count` requests at once get through."""
        return await granted((self.limits,), who, count)

    async def refusal(self, who: RequestContext) -> RateLimited:
        """Asks until it is refused."""
        while True:
            try:
                await self.limits.admit(who)
            except RateLimited as error:
                return error

    @property
    def alone(self) -> float | None:
        """How many requests it had to judge without Redis."""
        return self.metrics.registry.get_sample_value("llmgw_limits_alone_total")


async def granted(workers: Iterable[RequestLimits], who: RequestContext, count: int) -> int:
    """How many of `count` requests at once get through on all workers together; `count` is for each."""
    asked = [limits.admit(who) for _ in range(count) for limits in workers]
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [result for result in results if isinstance(result, RateLimited)]
    for result in results:
        if isinstance(result, BaseException) and result not in refused:
            raise result
    return len(results) - len(refused)
