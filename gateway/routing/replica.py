"""A replica as the gateway sees it, whatever told of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.origin import Origin
from gateway.settings import Upstream


class State(StrEnum):
    """Where a replica stands. Only a ready one is asked; the others tell that the model is there, or will be."""

    ASLEEP = "asleep"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


# What a record may count to: the router computes with it.
_Count = Annotated[int, Field(ge=0, le=10**9)]


class Record(BaseModel):
    """A directory record as the backend writes it, with what the gateway uses of it."""

    model_config = ConfigDict(strict=True, protected_namespaces=(), allow_inf_nan=False)

    version: Literal[1]
    id: str
    state: State
    model: str
    url: str
    served_name: str
    tasks: frozenset[str]
    capabilities: frozenset[str]
    max_model_len: _Count
    max_num_seqs: _Count
    revision: str
    weight: Annotated[float, Field(gt=0)]
    priority: int
    running: _Count
    waiting: _Count
    kv_cache: float
    measured_at: float

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.state is not State.ASLEEP:
            Origin.parse(self.url)
        return self


class Load(NamedTuple):
    """What a replica said it had to do, for all gateways together.

    Attributes:
        requests: running and waiting.
        kv_cache: how full its cache of keys and values was, 0 to 1.
        measured_at: by the replica's clock; it only tells a new reading from an old one.
    """

    requests: int = 0
    kv_cache: float = 0.0
    measured_at: float = 0.0


UNTOLD = Load()


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine server that answers for a model.

    Attributes:
        model: the name clients use; `served_name` is the engine's own.
        base_path: prefix of the engine's `/v1` routes, mostly empty.
        key: the engine's bearer token.
        max_model_len: its context in tokens, None when unknown.
        max_concurrency: how many requests it works on at once, None when unknown.
        revision: which weights and options it answers with, as far as that is known: of a static one, what it is called
            there.
        tells_usage: a stream of its can be asked what was used.
        capabilities: what its engine can do beside its tasks, as the directory says.
        weight: its share of the requests beside its equals.
        priority: those of a higher one are asked when no lower one can be.
        load: the last that was told of it; nobody tells of a static one.
    """

    id: str
    model: str
    origin: Origin
    base_path: str
    served_name: str
    key: str | None = field(repr=False)
    tasks: frozenset[str]
    max_model_len: int | None
    max_concurrency: int | None
    revision: str
    tells_usage: bool
    capabilities: frozenset[str] = frozenset()
    weight: float = 1.0
    priority: int = 0
    load: Load = UNTOLD

    @property
    def continues(self) -> bool:
        """It goes on with an answer whose beginning it is given (`completion/seam.py`)."""
        return "continue" in self.capabilities

    @classmethod
    def from_record(cls, record: Record, key: str | None) -> "Replica":
        return cls(
            id=record.id,
            model=record.model,
            origin=Origin.parse(record.url),
            base_path="",
            served_name=record.served_name,
            key=key,
            tasks=record.tasks,
            max_model_len=record.max_model_len,
            max_concurrency=record.max_num_seqs,
            revision=record.revision,
            tells_usage=True,
            capabilities=record.capabilities,
            weight=record.weight,
            priority=record.priority,
            load=Load(record.running + record.waiting, record.kv_cache, record.measured_at),
        )

    @classmethod
    def from_upstream(cls, upstream: Upstream, number: int) -> "Replica":
        origin = Origin.parse(upstream.url)
        return cls(
            id=f"static-{number}-{origin.authority}",
            model=upstream.model,
            origin=origin,
            base_path=upstream.url.partition(origin.authority)[2],
            served_name=upstream.served_name or upstream.model,
            key=upstream.key.get_secret_value() if upstream.key else None,
            tasks=frozenset(upstream.tasks),
            max_model_len=upstream.max_model_len,
            max_concurrency=upstream.max_concurrency,
            revision=upstream.served_name or "",
            tells_usage=upstream.tells_usage,
            capabilities=frozenset({"continue"}) if upstream.continues else frozenset(),
            weight=upstream.weight,
            priority=upstream.priority,
        )
