"""The seam between a replica and the engine that serves it: an engine is an OpenAI-speaking server process.

The replica picks a place, starts what `launch` says, polls `health_path` until it answers 200 and reads the load
from `/metrics`. Every route but the health must demand `Authorization: Bearer $LLMGW_ENGINE_KEY`; the server finds the
key in its environment, never on its command line.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from backend.spec import ModelSpec

KEY_VARIABLE = "LLMGW_ENGINE_KEY"


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a replica over several nodes.

    Attributes:
        rank: 0 for the part that has the door.
        size: how many parts there are.
        host: the node of rank 0; the parts meet at its `port`.
    """

    rank: int
    size: int
    host: str
    port: int

    def of(self, rank: int) -> "Share":
        return replace(self, rank=rank)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine server runs.

    Attributes:
        host: the node's address, which the server listens on.
        threads: how many compute threads it may have: the CPUs that are reserved.
        cores: the ids of the cores that are this replica's alone; empty when any will do.
        share: which part this is of a replica over several nodes, None when it is the whole.
    """

    host: str
    port: int
    threads: int
    cores: tuple[int, ...] = ()
    share: Share | None = None

    @property
    def url(self) -> str:
        """The server's address, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one engine server. `env` is added to the replica's own environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine has to do.

    Attributes:
        running: requests that are being worked on.
        waiting: requests that wait for a slot.
        kv_cache: how full the cache of keys and values is, 0 to 1; 0 where the engine does not tell.
    """

    running: int = 0
    waiting: int = 0
    kv_cache: float = 0.0


class NoOptions(BaseModel):
    """An engine that needs to know no more than every ModelSpec says."""

    model_config = ConfigDict(extra="forbid")


class Engine(ABC):
    """
    Attributes:
        options: what a model's `options` must be.
        spans_nodes: one server can be parts on several nodes; `Place.share` tells each which it is.
    """

    tasks: ClassVar[frozenset[str]]
    options: ClassVar[type[BaseModel]] = NoOptions
    health_path: ClassVar[str] = "/health"
    spans_nodes: ClassVar[bool] = False

    def check(self, spec: "ModelSpec") -> None:  # noqa: B027  # most engines have nothing to add
        """Raises ValueError when the fields of `spec`, each right by itself, do not go together."""

    def names(self, spec: "ModelSpec") -> tuple[str, ...]:
        """The models that one server answers for, by their public names."""
        return (spec.name,)

    def serves(self, spec: "ModelSpec") -> tuple[str, ...]:
        """The tasks of the gateway's endpoints that its server answers."""
        return ("chat", "completions") if spec.task == "chat" else (spec.task.value,)

    def pins_cores(self, spec: "ModelSpec") -> bool:
        """Whether its threads want cores of their own."""
        return False

    @abstractmethod
    def launch(self, spec: "ModelSpec", place: Place) -> Launch:
        """Command line and environment of a server for `spec` at `place`.

        Raises:
            MissingModel: the model's files are not there.
        """

    @abstractmethod
    def load(self, metrics: str) -> Load:
        """The load in a scrape of the server's `/metrics` (Prometheus text)."""

    @abstractmethod
    def capabilities(self, spec: "ModelSpec") -> tuple[str, ...]:
        """What the directory promises about this model: some of `continue`, `tools`, `logprobs`, `cache_salt`."""

    @abstractmethod
    def memory(self, spec: "ModelSpec") -> int:
        """A rough estimate of one replica's resident memory on the host, in bytes; raises MissingModel."""


def sample(metrics: str, name: str) -> int:
    """The sum of one metric over its labels; 0 when it is not there."""
    return int(sum(values(metrics, name)))


def values(metrics: str, name: str) -> list[float]:
    """One metric's values, one for each set of labels, but for those that are NaN or infinite."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", metrics, re.MULTILINE)
    return [number for value in found if isfinite(number := float(value))]
