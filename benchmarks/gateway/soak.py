"""`python -m benchmarks.gateway.soak --minutes 30`: does it leak?

Half of the load it can bear, nine whole answers to one stream, beside clients that disconnect at random. Printed in the
end: the memory's slope per 100,000 requests by linear regression after the warm-up, and what is still open when all
clients are gone.
"""

import argparse
import asyncio
import json
import re
import signal
import statistics
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from typing import Any

from benchmarks.gateway import load, machine, mock, redis
from benchmarks.gateway.check import check
from benchmarks.gateway.dialect import STREAM, WHOLE
from benchmarks.gateway.disconnects import keep_leaving
from benchmarks.gateway.load import Load
from benchmarks.gateway.mock import Mock
from benchmarks.gateway.server import Server, started
from benchmarks.gateway.systems import ALL, OURS

_PAUSE_MS = (10, 30)
_WARM_UP = 0.2  # of the samples
_SETTLE_S = 15.0
_MIX = (WHOLE,) * 9 + (STREAM,)


def _half_load(server: Server) -> Load:
    """As many pausing connections as make half of what it answers without a pause."""
    streams = load.run(server, Load(STREAM, 32, 5))["per_second"]
    whole = load.run(server, Load(WHOLE, 32, 5))["per_second"]
    capacity = 1 / (0.9 / whole + 0.1 / streams)
    return Load(WHOLE, max(4, round(capacity / 2 * statistics.mean(_PAUSE_MS) / 1e3)), 1, _PAUSE_MS)


def _sample(server: Server, engine: Mock) -> dict[str, Any]:
    assert server.process is not None
    tree = server.process.tree()
    connections = [c for process in tree for c in process.net_connections("tcp") if c.status == "ESTABLISHED"]
    return {
        "at": time.monotonic(),
        "requests": engine.status()["requests"],
        "memory": server.process.memory_mb(),
        "files": sum(process.num_fds() for process in tree),
        "to_upstream": sum(c.raddr.port == engine.port for c in connections),
        "to_clients": sum(c.laddr.port == server.port for c in connections),
    } | (_own_metrics(server) if server.name.startswith(OURS) else {})


def _own_metrics(server: Server) -> dict[str, Any]:
    """What our own metrics say, which other systems have not: requests in flight but this one, answers by status."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers=server.headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    statuses: Counter[str] = Counter()
    for status, count in re.findall(r'^llmgw_requests_total\{.*status="(\d+)".*\} (\S+)', text, re.MULTILINE):
        statuses[status] += round(float(count))
    in_flight = re.search(r"^llmgw_requests_in_flight (\S+)", text, re.MULTILINE)
    return {"in_flight": int(float(in_flight[1])) - 1 if in_flight else None, "statuses": statuses}


async def _soak(server: Server, engine: Mock, what: Load, leaving: float, every_s: float) -> dict[str, Any]:
    ways: Counter[str] = Counter()
    samples = [_sample(server, engine)]
    leavers = asyncio.create_task(keep_leaving(server, leaving, ways))
    wrk = await asyncio.create_subprocess_exec(*what.command(server, *_MIX[1:]), stdout=asyncio.subprocess.PIPE)
    ended = asyncio.create_task(wrk.communicate())
    try:
        while not (await asyncio.wait([ended], timeout=every_s))[0]:
            samples.append(await asyncio.to_thread(_sample, server, engine))
            now = samples[-1]
            print({key: now[key] for key in now if key != "at"}, file=sys.stderr, flush=True)
    finally:
        leavers.cancel()
        if wrk.returncode is None:
            wrk.terminate()
        await asyncio.gather(leavers, return_exceptions=True)
    await asyncio.sleep(_SETTLE_S)
    left = _sample(server, engine) | {"open_at_upstream": engine.status()["open"]}
    return {"load": load.parse(ended.result()[0].decode()), "left_in": dict(ways), "samples": samples, "left": left}


def slope(samples: list[dict[str, Any]], kind: str) -> float | None:
    """MB per 100,000 requests, after the warm-up."""
    kept = samples[int(len(samples) * _WARM_UP) :]
    if len(kept) < 3:
        return None
    x, y = [s["requests"] / 1e5 for s in kept], [s["memory"][kind] for s in kept]
    return statistics.linear_regression(x, y).slope


def _print(result: dict[str, Any]) -> None:
    samples, left = result["samples"], result["left"]
    requests, seconds = (samples[-1][key] - samples[0][key] for key in ("requests", "at"))
    print(f"{result['system']}: {requests:,} requests in {seconds / 60:.1f} min, {requests / seconds:,.0f}/s")
    print(f"clients that left: {result['left_in']}; load: {result['load']}")
    print(f"answers by status, its own count: {dict(left.get('statuses', {}))}")
    for kind in ("rss", "pss"):
        trend = result["slope"][kind]
        print(f"{kind.upper()}: {samples[0]['memory'][kind]} -> {samples[-1]['memory'][kind]} MB, "
              + ("too short for a slope" if trend is None else f"{trend:+.3f} MB per 100,000 requests"))  # fmt: skip
    print(f"left over after {_SETTLE_S:.0f} s: {left['to_clients']} client connections, "
          f"{left['open_at_upstream']} open requests at the upstream, in flight by its own gauge: "
          f"{left.get('in_flight', 'not known')}, {left['to_upstream']} idle upstream connections, "
          f"{left['files']} files ({samples[0]['files']} at the start)")  # fmt: skip


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--system", choices=[s.name for s in ALL if s.launch], default=OURS)
    parser.add_argument("--leaving", type=float, default=30, help="clients per second that disconnect")
    parser.add_argument("--every", type=float, default=10, help="seconds between samples")
    arguments = parser.parse_args()
    machine.prepare()
    system = next(system for system in ALL if system.name == arguments.system)
    with (
        machine.run_folder() as folder,
        mock.running(folder) as engine,
        redis.running(folder) as redis_url,
        started(system, engine, folder, redis_url) as server,
    ):
        check(server)
        what = replace(_half_load(server), seconds=max(1, round(arguments.minutes * 60)))
        result = asyncio.run(_soak(server, engine, what, arguments.leaving, arguments.every))
    result |= {"system": system.name, "slope": {kind: slope(result["samples"], kind) for kind in ("rss", "pss")}}
    machine.RESULTS.mkdir(exist_ok=True)
    target = machine.RESULTS / f"soak-{system.name}.json"
    target.write_text(json.dumps({"machine": machine.describe()} | result, indent=1) + "\n")
    _print(result)


if __name__ == "__main__":
    main()
