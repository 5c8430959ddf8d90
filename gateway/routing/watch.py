"""What a worker does about its replicas beside the requests: once in WATCH_S, and never on a request's path.

It asks those that are left out whether they are there, so that no request has to find out; it leaves slow outliers out;
and it forgets those that are gone.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from gateway.routing.directory import Directory
from gateway.routing.router import Router
from gateway.routing.standing import Standing
from gateway.upstream.health import TIMEOUT_S, HealthCheck

WATCH_S = 0.5
# No request goes where no health was found, until a look finds some; and not for ever, should there be none.
HOLD_S = 3 * (WATCH_S + TIMEOUT_S)
# A replica is an outlier when its first token takes so many times the others' median, and so long at least.
SLOW_TIMES = 10.0
SLOW_S = 1.0
SLOW_SAMPLES = 8
# Of two nobody can tell which is the outlier.
FEWEST = 3

log = logging.getLogger(__name__)


class Watch:
    def __init__(self, router: Router, directory: Directory, health: HealthCheck) -> None:
        self._router = router
        self._directory = directory
        self._health = health

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await asyncio.sleep(WATCH_S)
                try:
                    await self._look()
                except Exception:  # without it, those that are well again come back by their requests alone
                    log.exception("the replicas cannot be watched; trying again")
        finally:
            await self._health.aclose()

    async def _look(self) -> None:
        pools = [pool for model in self._directory.models() if (pool := self._directory.pool(model))]
        self._router.keep({replica.id for pool in pools for some in pool.replicas.values() for replica in some})
        leave_out_outliers(list(self._router.standings.values()), self._router.clock())
        await asyncio.gather(*map(self._ask, self._router.left_out))

    async def _ask(self, standing: Standing) -> None:
        replica = standing.replica
        alive = await self._health.alive(replica.origin, replica.base_path)
        standing.breaker.hold(self._router.clock(), 0.0 if alive else HOLD_S)


def leave_out_outliers(standings: Sequence[Standing], now: float) -> None:
    """Opens the breakers of replicas that are far slower than others of their kind, of half of these at most."""
    kinds: dict[tuple[str, str, float], list[Standing]] = defaultdict(list)
    for standing in standings:
        replica = standing.replica
        # A CPU beside a GPU is slow by nature: it has another revision, or a weight that says so.
        kinds[replica.model, replica.revision, replica.weight].append(standing)
    for kind in kinds.values():
        room = len(kind) // 2 - sum(not standing.breaker.closed for standing in kind)
        measured = [(one.ttft, one) for one in kind if one.ttft is not None and one.samples >= SLOW_SAMPLES]
        if len(kind) < FEWEST:
            continue
        for ttft, standing in sorted(measured, key=lambda pair: pair[0], reverse=True)[: max(room, 0)]:
            others = [seconds for seconds, other in measured if other is not standing]
            if standing.breaker.closed and others and ttft > max(SLOW_S, SLOW_TIMES * median(others)):
                log.warning("replica %s is %.0f times slower than its like", standing.replica.id, ttft / median(others))
                standing.breaker.open(now)
                standing.forget_speed()  # it is to be measured anew
