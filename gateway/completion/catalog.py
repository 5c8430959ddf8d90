"""Which models there are, for whom."""

from collections.abc import Sequence

from gateway.context import RequestContext
from gateway.errors import ModelNotFound, NoReplica
from gateway.routing.directory import Directory
from gateway.routing.pool import Pool


class Catalog:
    """Names to models.

    Attributes:
        created: when this gateway came up, in seconds since the epoch: OpenAI's `created` of every model.

    Args:
        configured: models that exist even while nobody serves them.
    """

    def __init__(self, directory: Directory, configured: Sequence[str], created: int) -> None:
        self.created = created
        self._directory = directory
        self._configured = configured

    def models(self, context: RequestContext) -> list[Pool]:
        """The models this caller may use that are served, now or soon, in a stable order."""
        pools = (self._directory.pool(name) for name in sorted(self._directory.models()) if context.allows(name))
        return [pool for pool in pools if pool is not None]

    def model(self, name: str, context: RequestContext) -> Pool:
        """Raises ModelNotFound, in the same words for an unknown model and for another tenant's."""
        pool = self._directory.pool(name)
        if pool is None and name in self._configured:
            pool = Pool(name)
        if pool is None or not context.allows(name):
            raise ModelNotFound(
                f"The model '{name}' does not exist or you do not have access to it; /v1/models lists yours.",
                param="model",
            )
        return pool

    def default(self, task: str, context: RequestContext) -> Pool:
        """The first model that can do `task`: one with a replica before others, in the order of the configuration.

        Raises:
            NoReplica: none can at the moment.
        """
        capable = [pool for pool in self.models(context) if task in pool.tasks]
        if not capable:
            raise NoReplica(f"No model for {task} has a replica at the moment. Please try again soon.")
        ranks = {name: rank for rank, name in enumerate(self._configured)}
        return min(capable, key=lambda pool: (not pool.replicas, ranks.get(pool.model, len(ranks))))

    def missing(self) -> list[str]:
        """Configured models without a replica, but for those that sleep."""
        pools = {name: self._directory.pool(name) for name in self._configured}
        return [name for name, pool in pools.items() if pool is None or not (pool.replicas or pool.asleep)]
