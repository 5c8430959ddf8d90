"""The mock engine: nginx with Lua (conf/mock.conf), on the load's core."""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway import machine
from benchmarks.gateway.process import Process

EVENTS = 64  # of one stream: one with the role, 62 tokens, one with the finish reason; `[DONE]` is not counted
TOKENS = EVENTS - 2
TEXT = "Hello there, how can I help you today?"


def render(template: str, target: Path, **values: object) -> Path:
    """Fills `@NAME@` in a file of conf/."""
    text = (machine.HERE / "conf" / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name.upper()}@", str(value))
    target.write_text(text)
    return target


def nginx(template: str, folder: Path, **values: object) -> list[str]:
    """The command of an nginx that keeps everything it writes in `folder`."""
    folder.chmod(0o755)
    configuration = render(template, folder / "nginx.conf", folder=folder, **values)
    return ["nginx", "-p", str(folder), "-c", str(configuration)]


@dataclass(frozen=True)
class Mock:
    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self) -> dict[str, int]:
        """Its own view of the gateway: requests answered so far, open ones (this one left out), idle connections."""
        with urllib.request.urlopen(f"{self.url}/status", timeout=5) as answer:
            text = answer.read().decode()
        requests = int(text.splitlines()[2].split()[2])
        writing, waiting = (int(re.search(rf"{name}: (\d+)", text)[1]) for name in ("Writing", "Waiting"))  # type: ignore[index]
        return {"requests": requests, "open": writing - 1, "idle": waiting}


@contextmanager
def running(folder: Path, cores: tuple[int, ...] = (machine.LOAD_CORE,)) -> Iterator[Mock]:
    home = folder / "mock"
    home.mkdir()
    port = machine.free_port()
    process = Process(nginx("mock.conf", home, port=port), cores, home / "log", {})
    try:
        process.wait_ready(f"http://127.0.0.1:{port}/health", 10)
        yield Mock(port, process)
    finally:
        process.stop()
