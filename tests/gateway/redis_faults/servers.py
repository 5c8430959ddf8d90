"""Real Redis servers on ports of loopback: with options of a test's own, replicas and Sentinels."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis

from tests.conftest import REDIS


class Server:
    """One that a test may kill and start again, with its data and other options.

    Args:
        words: of its command line, after the program's name.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._words = words
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *words: str) -> None:
        place = ["--port", str(self.port), "--dir", str(self.folder)]
        argv = [str(REDIS), *self._words, *place, *words]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        while not self._listens():
            assert self._process.poll() is None, "Redis did not start"
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """As kill -9 does."""
        self._process.kill()
        self._process.wait()

    def blocking(self) -> Redis:
        return Redis(port=self.port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def server(folder: Path, *words: str) -> Iterator[Server]:
    running = Server(folder, *words)
    try:
        yield running
    finally:
        running.kill()


class Watched:
    """A master, its replica, and Sentinels that watch them.

    Attributes:
        url: asks the Sentinels.
    """

    def __init__(self, folder: Path, stack: ExitStack, sentinels: int = 3, **own: str) -> None:
        words = ("--save", "", "--repl-diskless-sync-delay", "0")
        self.master = stack.enter_context(server(folder / "a", *words))
        self.replica = stack.enter_context(
            server(folder / "b", *words, "--replicaof", "127.0.0.1", str(self.master.port))
        )
        self.sentinels = [
            stack.enter_context(self._sentinel(folder / f"s{number}", sentinels // 2 + 1))
            for number in range(sentinels)
        ]
        for sentinel in self.sentinels:
            _hurry(sentinel)
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/ours"

    def _sentinel(self, folder: Path, quorum: int):
        folder.mkdir()
        file = folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor ours 127.0.0.1 {self.master.port} {quorum}\n"
            "sentinel down-after-milliseconds ours 300\n"
            "sentinel failover-timeout ours 2000\n"
        )
        return server(folder, str(file), "--sentinel")

    def ready(self) -> bool:
        """Whether the replica follows, and every Sentinel knows it and the others."""
        with self.master.blocking() as master:
            if not any(slave == "slave0" for slave in master.info("replication")):
                return False
        for sentinel in self.sentinels:
            with sentinel.blocking() as asked:
                state = asked.sentinel_masters()["ours"]
            if state["num-slaves"] != 1 or state["num-other-sentinels"] != len(self.sentinels) - 1:
                return False
        return True


def _hurry(sentinel: Server) -> None:
    """So that it looks at all the others every tenth of a second, in place of every two and every ten."""
    with sentinel.blocking() as told:
        told.execute_command("SENTINEL", "DEBUG", "publish-period", 100, "info-period", 100)


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(folder, stack)
