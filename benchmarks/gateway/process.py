"""A server under test: pinned to its core, paused while others run, and measured with all its children."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_OURS = ("LLMGW_", "PROMETHEUS_", "OPENAI_", "REDIS_")


class StartFailed(Exception):
    """It did not become ready; the message ends with what it said last."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that configures one of the systems or sends loopback traffic to a proxy."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and not name.lower().endswith("_proxy")
    }
    return inherited | {"NO_PROXY": "127.0.0.1"} | dict(extra)


class Process:
    """A process and its descendants, on one or more cores."""

    def __init__(self, argv: Sequence[str], cores: Sequence[int], log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        pinned = ["taskset", "-c", ",".join(map(str, cores)), *argv]
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(env), cwd=log.parent,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._popen.pid

    def tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._popen.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """User and system seconds used so far by all of the tree."""
        return sum(value for value in self._each(lambda process: sum(process.cpu_times()[:2])))

    def memory_mb(self) -> dict[str, float]:
        """RSS summed over the tree, and PSS, which counts a page that processes share once."""
        rss = sum(self._each(lambda process: process.memory_info().rss))
        pss = sum(self._each(lambda process: process.memory_full_info().pss))
        return {"rss": round(rss / 2**20, 2), "pss": round(pss / 2**20, 2)}

    def _each(self, value) -> Iterator[float]:
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                yield value(process)

    def pause(self) -> None:
        """Takes no more of its core; what is compiled, cached and connected stays."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def wait_ready(self, url: str, timeout_s: float = 90.0) -> None:
        """Raises StartFailed when `url` does not answer 200 in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._popen.poll() is not None:
                raise StartFailed(f"ended with status {self._popen.returncode}: {self.last_words()}")
            with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise StartFailed(f"not ready after {timeout_s:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])[-400:] if lines else "it said nothing"

    def stop(self) -> None:
        tree = self.tree()
        self._signal(signal.SIGTERM)
        self.resume()
        _, left = psutil.wait_procs(tree, timeout=8)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait()

    def _signal(self, number: int) -> None:
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
