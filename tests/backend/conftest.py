"""Real parts for the backend's tests: a Redis, engine servers, and one whole local cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis

from backend.engines import engines
from backend.engines.base import Place
from backend.ports import LOOPBACK, free_port
from backend.server import EngineServer
from backend.spec import ClusterSpec, ModelSpec

KEY = "test-engine-key"
AUTH = {"Authorization": f"Bearer {KEY}"}


def eventually(probe: Callable[[], Any], timeout_s: float = 30) -> Any:
    """Polls until the probe gives something true, and gives that."""
    deadline = time.monotonic() + timeout_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {value!r}"
        time.sleep(0.05)
    return value


def descendants(pid: int) -> dict[int, str]:
    """Command lines by pid of all processes below one."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            found[process.pid] = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session", autouse=True)
def engine_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The engines' key, and one home for the session, so that MiniLM is converted once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMGW_ENGINE_KEY", KEY)
        patch.setenv("LLMGW_HOME", str(folder))
        patch.delenv("LLMGW_REDIS_URL", raising=False)
        yield folder


@pytest.fixture(scope="session")
def default_models() -> dict[str, ModelSpec]:
    return {spec.task.value: spec for spec in ClusterSpec.load().models}


async def _served(spec: ModelSpec) -> AsyncIterator[EngineServer]:
    server = await EngineServer.start(spec, engines()[spec.engine], Place(LOOPBACK, free_port(), threads=1))
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def chat_engine(default_models: dict[str, ModelSpec]) -> AsyncIterator[EngineServer]:
    async for server in _served(default_models["chat"]):
        yield server


@pytest.fixture(scope="session")
async def embeddings_engine(default_models: dict[str, ModelSpec]) -> AsyncIterator[EngineServer]:
    async for server in _served(default_models["embeddings"]):
        yield server


@pytest.fixture
async def chat_client(chat_engine: EngineServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=chat_engine.url, headers=AUTH, timeout=60) as client:
        yield client


@pytest.fixture
async def embeddings_client(embeddings_engine: EngineServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=embeddings_engine.url, headers=AUTH, timeout=60) as client:
        yield client


@dataclass
class Cluster:
    """`python -m backend` as a child of this process.

    Attributes:
        events: what it has said on its standard output so far.
    """

    process: "subprocess.Popen[str]"
    redis: Redis | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def read_until(self, *kinds: str) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] in kinds:
                break
        return self.events[-1]

    def records(self, state: str = "ready") -> dict[str, dict[str, Any]]:
        """The directory's records in a state, by model."""
        assert self.redis
        keys = list(self.redis.scan_iter(match="{llmgw}:directory:replica:*"))
        records = [json.loads(value) for value in self.redis.mget(keys) if value] if keys else []
        return {record["model"]: record for record in records if record["state"] == state}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def start_cluster(*argv: str, **environment: str) -> Cluster:
    process = subprocess.Popen(
        [sys.executable, "-m", "backend", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    return Cluster(process)
