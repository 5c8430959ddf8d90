"""Two workers on two cores against one, ours only.

There are two cores for everything, so twice the throughput cannot be seen: mock engine and load take their share of
both. What can be seen is whether a request gets dearer. All processes may use both cores in either case, and

    efficiency = throughput with two workers / (2 / (gateway CPU per request with one worker + the rest per request))

is 1 when two workers fill two cores without costing each other anything.
"""

import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gateway import machine, mock
from benchmarks.gateway.dialect import WHOLE
from benchmarks.gateway.load import Load, parse
from benchmarks.gateway.mock import Mock
from benchmarks.gateway.server import Server, started
from benchmarks.gateway.systems import ALL, OURS

_CONNECTIONS = 64  # the kernel spreads them over the workers by hash


def _run(server: Server, engine: Mock, seconds: int) -> dict[str, float]:
    assert server.process is not None
    command = Load(WHOLE, _CONNECTIONS, seconds).command(server)[3:]  # without the pin
    cores = f"{machine.GATEWAY_CORE},{machine.LOAD_CORE}"
    gateway, upstream = server.cpu_s(), engine.process.cpu_s()
    busy = psutil.cpu_times()
    children = machine.children_cpu_s()
    output = subprocess.run(["taskset", "-c", cores, *command], capture_output=True, text=True, check=True).stdout
    result, now = parse(output), psutil.cpu_times()
    requests = result["requests"]
    idle = now.idle + now.iowait - busy.idle - busy.iowait
    return {
        "per_second": requests / result["seconds"],
        "non_2xx": result["non_2xx"],
        "gateway_us": (server.cpu_s() - gateway) / requests * 1e6,
        "mock_us": (engine.process.cpu_s() - upstream) / requests * 1e6,
        "load_us": (machine.children_cpu_s() - children) / requests * 1e6,
        "idle_share": idle / (sum(now) - sum(busy)),
    }


def measure(folder: Path, count: int, seconds: int) -> dict[str, Any]:
    """Rounds of one worker and two, in turn; medians are left to the reader of the results."""
    both = (machine.GATEWAY_CORE, machine.LOAD_CORE)
    system = next(system for system in ALL if system.name == OURS)
    home = folder / "scaling"
    home.mkdir()
    samples: list[dict[str, Any]] = []
    with mock.running(home, both) as engine:
        for number in range(count):
            for workers in (1, 2):
                with started(system, engine, home, "", both, workers) as server:
                    _run(server, engine, 2)
                    time.sleep(0.2)
                    sample = _run(server, engine, seconds)
                samples.append({"round": number, "workers": workers} | sample)
    return {"samples": samples, "efficiency": _efficiency(samples)}


def _efficiency(samples: list[dict[str, Any]]) -> list[float]:
    pairs = zip(samples[::2], samples[1::2], strict=True)
    return [
        two["per_second"] * (one["gateway_us"] + one["mock_us"] + one["load_us"]) / 2e6
        for one, two in pairs
    ]  # fmt: skip
