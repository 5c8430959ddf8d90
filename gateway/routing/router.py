"""The router: in which order the replicas of a pool are asked for one request, and how it went.

Those that fail are left out (`breaker.py`), those of a lower priority number come first, and among these a policy
chooses (`policies/`). Whoever has as much as it works on comes behind those that have room. What it goes by is each
worker's own measurement and the load that the directory tells (`standing.py`).
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import groupby
from random import Random

from gateway.context import RequestContext
from gateway.errors import InvalidRequest
from gateway.metrics import Metrics
from gateway.routing.attempt import Attempt
from gateway.routing.breaker import Breaker
from gateway.routing.policies import policies
from gateway.routing.policies.base import Policy, Prompt
from gateway.routing.pool import Pool
from gateway.routing.replica import Replica
from gateway.routing.standing import Standing
from gateway.settings import ConfigError

log = logging.getLogger(__name__)

Listener = Callable[[Standing], None]


class Router:
    """One per worker.

    Args:
        default: the policy of models that `by_model` does not name.
        clock: seconds, monotonic.

    Attributes:
        standings: of the replicas that were asked, by id.
        listeners: told of every breaker that has opened or closed.

    Raises:
        ConfigError: there is no such policy.
    """

    def __init__(
        self,
        default: str,
        by_model: Mapping[str, str],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.standings: dict[str, Standing] = {}
        self.listeners: list[Listener] = []
        self.clock = clock
        self._policies = policies()
        for name in (default, *by_model.values()):
            if name not in self._policies:
                raise ConfigError(f"there is no routing policy '{name}', only {', '.join(self._policies)}")
        self._default = self._policies[default]
        self._by_model = {model: self._policies[name] for model, name in by_model.items()}
        self._metrics = metrics
        self._random = Random()  # noqa: S311  # it spreads, and hides nothing
        self._open: dict[str, Standing] = {}

    def order(
        self, pool: Pool, replicas: Sequence[Replica], context: RequestContext, prompt: Prompt
    ) -> Sequence[Replica]:
        """The best first, the others behind it in the order in which they are to be tried.

        Args:
            replicas: some of the pool's, in its order. Those that are left out come only when there is no other.

        Raises:
            InvalidRequest: the request names a policy that there is not.
        """
        if len(replicas) < 2 and context.policy is None:
            return replicas
        policy = self._policy(pool.model, context.policy)
        standings: Sequence[Standing] = [self.standing(replica) for replica in replicas]
        now, probe = self.clock(), None
        if self._open:
            closed = [standing for standing in standings if standing.breaker.closed]
            if not closed:
                return [standing.replica for standing in sorted(standings, key=lambda one: one.breaker.until)]
            due = (standing for standing in standings if standing.breaker.due(now))
            probe = next((one for one in due if one.replica.priority <= closed[0].replica.priority), None)
            standings = closed
        if len(standings) == 1:
            ordered: Sequence[Standing] = standings
        elif standings[0].replica.priority == standings[-1].replica.priority:
            ordered = policy.order(standings, context, prompt, now)
        else:
            ordered = list(_by_priority(policy, standings, context, prompt, now))
        if ordered[0].full:
            ordered = sorted(ordered, key=_full)
        chosen = [standing.replica for standing in ordered]
        return chosen if probe is None else [probe.replica, *chosen]

    def begin(self, replica: Replica) -> Attempt:
        """A request goes to this replica now."""
        return Attempt(self.standing(replica), self.clock)

    def standing(self, replica: Replica) -> Standing:
        standing = self.standings.get(replica.id)
        if standing is None:
            standing = self.standings[replica.id] = Standing(replica, Breaker(self._random))
            standing.breaker.changed = partial(self._changed, standing)
        elif standing.replica is not replica:
            standing.see(replica)
        return standing

    def keep(self, ids: Set[str]) -> None:
        """Forgets all other replicas, once they have no request of this worker any more."""
        gone = [id_ for id_, standing in self.standings.items() if id_ not in ids and not standing.in_flight]
        for id_ in gone:
            del self.standings[id_]
            if self._open.pop(id_, None):
                self._tell_metrics()

    @property
    def left_out(self) -> Sequence[Standing]:
        """The replicas that are not to be asked now."""
        return list(self._open.values())

    def _policy(self, model: str, asked: str | None) -> Policy:
        if asked is None:
            return self._by_model.get(model, self._default)
        if asked not in self._policies:
            raise InvalidRequest(f"There is no routing policy '{asked}', only {', '.join(self._policies)}.")
        return self._policies[asked]

    def _changed(self, standing: Standing) -> None:
        id_, breaker = standing.replica.id, standing.breaker
        if breaker.closed:
            log.info("replica %s is asked again", id_)
            self._open.pop(id_, None)
        else:
            log.warning("replica %s is left out for %.1f s", id_, breaker.until - self.clock())
            self._open[id_] = standing
        self._tell_metrics()
        for listener in self.listeners:
            listener(standing)

    def _tell_metrics(self) -> None:
        self._metrics.left_out_changed(Counter(standing.replica.model for standing in self._open.values()))


def _full(standing: Standing) -> bool:
    return standing.full


def _by_priority(
    policy: Policy, standings: Sequence[Standing], context: RequestContext, prompt: Prompt, now: float
) -> Iterator[Standing]:
    for _, equals in groupby(standings, key=lambda standing: standing.replica.priority):
        some = list(equals)
        yield from policy.order(some, context, prompt, now) if len(some) > 1 else some
