import gc
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx._transports.default
import httpx2._transports.default
import pytest
from redis.asyncio import Redis

from gateway.cli.embedded_redis import server_path

# Another server than the packaged one: another version, a Valkey, a build with TLS.
REDIS = os.environ.get("TEST_REDIS_SERVER") or server_path()

# Each client that a test makes reads all certificates of the machine, for 50 ms; here they read them once.
for _transports in (httpx._transports.default, httpx2._transports.default):
    _transports.create_ssl_context = cache(_transports.create_ssl_context)


# As in a worker of the gateway.
gc.set_threshold(10_000, 20, 50)


@pytest.fixture(scope="module", autouse=True)
def what_is_there_stays() -> None:
    """Imports and applications leave a million objects: the collector need not walk them in every test."""
    gc.collect()
    gc.freeze()


class RedisServer:
    """A real Redis that a test may kill and start again, on the same socket."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", str(self._socket.parent)]
        self._process = subprocess.Popen([REDIS, *options], stdout=subprocess.DEVNULL)
        while not self._listens():
            assert self._process.poll() is None, "Redis did not start"
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.unlink(missing_ok=True)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Its folder is short: a unix socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url, socket_timeout=1.0) as client:
        yield client


@pytest.fixture
def no_chains_and_skills(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other doors, that make gateways by the hundred: these take six times as long as the rest."""
    from semantic_kernel import Kernel  # takes seconds to import

    monkeypatch.setattr("gateway.app.langserve.load", lambda *_: [])
    monkeypatch.setattr("gateway.app.semantic_kernel.load", lambda *_: Kernel())
