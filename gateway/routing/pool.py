"""The replicas of one model, and what is known of the model while it has none."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.routing.replica import Record, Replica, State


@dataclass(frozen=True, slots=True)
class Pool:
    """Who serves a model, now or soon.

    Attributes:
        tasks: such as `chat`, `completions`, `embeddings`: of its replicas, or of those that are expected.
        max_model_len: context in tokens that every replica can take, None when unknown.
        replicas: those that take requests, by task, those of the lowest priority number first; empty while there is
            none.
        revision: which weights and options answer under this name; another one gives other answers.
        capacity: how many requests its replicas work on at once, None when there is no bound or no replica. Those that
            drain count, since what they still work on does.
        continues: one of its replicas goes on with an answer that another began.
        asleep: it has no replica because nobody asks for it, and gets one when somebody does.
    """

    model: str
    tasks: frozenset[str] = frozenset()
    max_model_len: int | None = None
    replicas: Mapping[str, Sequence[Replica]] = field(default_factory=dict)
    revision: str = ""
    continues: bool = False
    asleep: bool = False
    capacity: int | None = None

    @property
    def size(self) -> int:
        return len({replica.id for some in self.replicas.values() for replica in some})


def pools(
    static: Iterable[Replica], live: Iterable[Record], left: Iterable[Record], key: str | None
) -> dict[str, Pool]:
    """The pools of all models.

    Args:
        left: records that are gone, of models that are expected back.
        key: the engines' bearer token.
    """
    members: dict[str, list[Replica]] = {}
    expected: dict[str, list[Record]] = {}
    draining: Counter[str] = Counter()
    for replica in static:
        members.setdefault(replica.model, []).append(replica)
    for record in live:
        if record.state is State.READY:
            members.setdefault(record.model, []).append(Replica.from_record(record, key))
        else:
            expected.setdefault(record.model, []).append(record)
            draining[record.model] += record.max_num_seqs if record.state is State.DRAINING else 0
    for record in left:
        expected.setdefault(record.model, []).append(record)
    return {
        model: _pool(model, members.get(model), expected.get(model, ()), draining[model])
        for model in {**expected, **members}
    }


def _pool(model: str, replicas: Sequence[Replica] | None, expected: Sequence[Record], draining: int) -> Pool:
    replicas = replicas and sorted(replicas, key=lambda replica: replica.priority)
    known = replicas or expected
    tasks = frozenset[str]().union(*(member.tasks for member in known))
    return Pool(
        model,
        tasks,
        min((member.max_model_len for member in known if member.max_model_len), default=None),
        {task: [replica for replica in replicas if task in replica.tasks] for task in tasks} if replicas else {},
        revision="+".join(sorted({member.revision for member in known})),
        continues=any(replica.continues for replica in replicas or ()),
        asleep=not replicas and any(record.state is State.ASLEEP for record in expected),
        capacity=_capacity(replicas, draining),
    )


def _capacity(replicas: Sequence[Replica] | None, draining: int) -> int | None:
    bounds = [replica.max_concurrency for replica in replicas or ()]
    known = [bound for bound in bounds if bound is not None]
    return sum(known) + draining if known and len(known) == len(bounds) else None
