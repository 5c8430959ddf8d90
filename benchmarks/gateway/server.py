"""Running systems: started, ready, with their addresses and the files the load generator takes."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway import machine
from benchmarks.gateway.dialect import LATE, PACED, SLOW, STREAM, WHOLE, headers
from benchmarks.gateway.mock import Mock
from benchmarks.gateway.process import Process, StartFailed
from benchmarks.gateway.systems import Site, System

KINDS = (WHOLE, STREAM, PACED, SLOW, LATE)


@dataclass(frozen=True)
class Server:
    """A system that is ready.

    Attributes:
        process: None for the mock engine itself, which has no gateway.
        headers: of each request.
    """

    system: System
    port: int
    folder: Path
    process: Process | None
    headers: dict[str, str]

    @property
    def name(self) -> str:
        return self.system.name

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.port}{self.system.dialect.url_path(kind)}"

    def body_file(self, kind: str) -> Path:
        return self.folder / f"{kind}.body"

    @property
    def headers_file(self) -> Path:
        return self.folder / "headers"

    def cpu_s(self) -> float:
        return self.process.cpu_s() if self.process else 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.process:
                stack.enter_context(self.process.running())
            yield

    def write_requests(self) -> None:
        self.headers_file.write_text("".join(f"{name}: {value}\n" for name, value in self.headers.items()))
        for kind in KINDS:
            self.body_file(kind).write_bytes(self.system.dialect.body(kind))


def raw_request(server: Server, kind: str, close: bool = False, more: Mapping[str, Any] | None = None) -> bytes:
    """The request as it goes over the wire; `more` are fields of its body beside the dialect's."""
    body = server.system.dialect.body(kind)
    if more:
        body = json.dumps(json.loads(body) | more).encode()
    fields = server.headers | {"host": f"127.0.0.1:{server.port}", "content-length": str(len(body))}
    fields |= {"connection": "close"} if close else {}
    lines = [f"POST {server.system.dialect.url_path(kind)} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _printed_port(process: Process, timeout_s: float = 30.0) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := re.search(r"listening on http://[\w.]+:(\d+)", process.log.read_text(errors="replace")):
            return int(found[1])
        time.sleep(0.1)
    raise StartFailed(f"no address: {process.last_words()}")


@contextmanager
def started(
    system: System,
    mock: Mock,
    folder: Path,
    redis_url: str,
    cores: Sequence[int] = (machine.GATEWAY_CORE,),
    workers: int = 1,
) -> Iterator[Server]:
    """Starts a system and stops it in the end. Raises StartFailed or NotInstalled."""
    home = folder / f"{system.name}-{time.monotonic_ns()}"
    home.mkdir()
    port, process = machine.free_port(), None
    extra = {name: value.format(mock=mock.url) for name, value in system.headers.items()}
    try:
        if system.launch:
            launch = system.launch(Site(home, port, mock.port, redis_url, workers))
            process = Process(launch.argv, cores, home / "log", launch.env)
            if system.ready:
                process.wait_ready(f"http://127.0.0.1:{port}{system.ready}")
            else:
                port = _printed_port(process)
        server = Server(system, port if process else mock.port, home, process, headers(extra))
        server.write_requests()
        yield server
    finally:
        if process:
            process.stop()
