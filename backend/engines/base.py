"""The seam between a replica and the engine that serves it: an engine is an OpenAI-speaking server process.

The replica picks a free port, starts what `launch` says, polls `health_path` until it answers 200 and reads the load
from `/metrics`. Every route but the health must demand `Authorization: Bearer $LLMGW_ENGINE_KEY`; the server finds the
key in its environment, never on its command line.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from backend.spec import ModelSpec

KEY_VARIABLE = "LLMGW_ENGINE_KEY"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one engine server. `env` is added to the replica's own environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that are being worked on, and requests that wait for a slot."""

    running: int = 0
    waiting: int = 0


class Engine(ABC):
    tasks: ClassVar[frozenset[str]]
    health_path: ClassVar[str] = "/health"

    @abstractmethod
    def launch(self, spec: "ModelSpec", port: int, threads: int) -> Launch:
        """Command line and environment of a server for `spec` on 127.0.0.1:`port`, with so many compute threads.

        Raises:
            MissingModel: the model's files are not there.
        """

    @abstractmethod
    def load(self, metrics: str) -> Load:
        """The load in a scrape of the server's `/metrics` (Prometheus text)."""

    @abstractmethod
    def capabilities(self, spec: "ModelSpec") -> tuple[str, ...]:
        """What the directory promises about this model: some of `continue`, `tools`, `logprobs`."""

    @abstractmethod
    def memory(self, spec: "ModelSpec") -> int:
        """A rough estimate of one replica's resident memory on the host, in bytes; raises MissingModel."""


def sample(metrics: str, name: str) -> int:
    """The sum of one metric over its labels; 0 when it is not there."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for value in found))
