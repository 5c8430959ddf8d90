"""Which models there are, for whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.context import RequestContext
from gateway.errors import ModelNotFound, NoReplica
from gateway.routing.directory import Directory
from gateway.routing.replica import Replica


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model, and who serves it.

    Attributes:
        tasks: `chat`, `completions`, `embeddings`.
        max_model_len: context in tokens that every replica can take, None when unknown.
        created: seconds since the epoch, as OpenAI's models have it.
        replicas: by task; empty while there is none.
    """

    name: str
    tasks: frozenset[str]
    max_model_len: int | None
    created: int
    replicas: Mapping[str, Sequence[Replica]]


class Catalog:
    """Names to models and replicas.

    Args:
        configured: models that exist even while no replica is there.
        created: when this gateway came up.
    """

    def __init__(self, directory: Directory, configured: Sequence[str], created: int) -> None:
        self._directory = directory
        self._configured = configured
        self._created = created
        self._infos: dict[str, tuple[Sequence[Replica], ModelInfo]] = {}

    def models(self, context: RequestContext) -> list[ModelInfo]:
        """The models this caller may use that have a replica, in a stable order."""
        names = [name for name in sorted(self._directory.models()) if context.allows(name)]
        return [self._info(name, self._directory.pool(name)) for name in names]

    def model(self, name: str, context: RequestContext) -> ModelInfo:
        """Raises ModelNotFound, in the same words for an unknown model and for another tenant's."""
        pool = self._directory.pool(name)
        if not (pool or name in self._configured) or not context.allows(name):
            raise ModelNotFound(
                f"The model '{name}' does not exist or you do not have access to it; /v1/models lists yours.",
                param="model",
            )
        return self._info(name, pool)

    def default(self, task: str, context: RequestContext) -> ModelInfo:
        """The first model that can do `task`, in the order of the configuration.

        Raises:
            NoReplica: none can at the moment.
        """
        capable = [model for model in self.models(context) if task in model.tasks]
        if not capable:
            raise NoReplica(f"No model for {task} has a replica at the moment. Please try again soon.")
        ranks = {name: rank for rank, name in enumerate(self._configured)}
        return min(capable, key=lambda model: ranks.get(model.name, len(ranks)))

    def missing(self) -> list[str]:
        """Configured models without a replica."""
        return [name for name in self._configured if not self._directory.pool(name)]

    def _info(self, name: str, pool: Sequence[Replica]) -> ModelInfo:
        known = self._infos.get(name)
        if known is None or known[0] is not pool:
            lengths = [replica.max_model_len for replica in pool if replica.max_model_len]
            tasks = frozenset[str]().union(*(replica.tasks for replica in pool))
            by_task = {task: [replica for replica in pool if task in replica.tasks] for task in tasks}
            info = ModelInfo(name, tasks, min(lengths, default=None), self._created, by_task)
            known = self._infos[name] = pool, info
        return known[1]
