"""wrk, on the load's core."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from benchmarks.gateway import machine
from benchmarks.gateway.server import Server


@dataclass(frozen=True)
class Load:
    """One run of the load generator.

    Attributes:
        delay_ms: each connection waits that long, at random, before each request; none: as fast as it gets answers.
        marks: each answer must hold "data:" that many times; counting costs the load generator time.
    """

    kind: str
    connections: int
    seconds: int
    delay_ms: tuple[int, int] = (0, 0)
    marks: int = 0

    def command(self, server: Server, *more_kinds: str) -> list[str]:
        bodies = [str(server.body_file(kind)) for kind in (self.kind, *more_kinds)]
        return [
            *("taskset", "-c", str(machine.LOAD_CORE)),
            *("wrk", "-t1", f"-c{self.connections}", f"-d{self.seconds}s", "--timeout", "60s"),
            *("-s", str(machine.HERE / "wrk.lua"), server.url(self.kind), "--"),
            *(str(server.headers_file), *map(str, self.delay_ms), str(self.marks), *bodies),
        ]


def run(server: Server, load: Load) -> dict[str, Any]:
    """Runs it; the result has what wrk says, the CPU time the server took, and how busy the cores were."""
    cores, cpu_before = machine.CoreUse(), server.cpu_s()
    output = subprocess.run(load.command(server), capture_output=True, text=True, check=True).stdout
    cpu_s, shares = server.cpu_s() - cpu_before, cores.shares()
    result = parse(output)
    errors = {name: result.pop(name) for name in ("non_2xx", "connect", "read", "write", "timeout", "incomplete")}
    return result | {
        "per_second": result["requests"] / result["seconds"],
        "errors": {name: count for name, count in errors.items() if count},
        "cpu_s": cpu_s,
        **shares,
    }


def parse(output: str) -> dict[str, Any]:
    return json.loads(output.strip().splitlines()[-1])
