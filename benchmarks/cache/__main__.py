"""`python -m benchmarks.cache`: what does the exact cache cost, and what does it give?

The gateway benchmark's mock engine, load and cores. Without Redis; with Redis and requests that the cache has no part
in; that miss, each with a seed of its own, and are stored; that hit. In turns, medians of the rounds.
"""

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.gateway import machine, mock, redis
from benchmarks.gateway.check import check
from benchmarks.gateway.dialect import STREAM, WHOLE
from benchmarks.gateway.server import Server, started
from benchmarks.gateway.systems import ALL, OURS

HERE = Path(__file__).parent
ROUNDS, SECONDS = 9, 1  # many short ones, for a shared machine is slow in turns
# What is measured: the system, and which seed its requests have.
CASES = {
    "no Redis": (OURS, "none"),
    "bypass": (f"{OURS}+redis", "none"),
    "miss": (f"{OURS}+redis", "new"),
    "hit": (f"{OURS}+redis", "fixed"),
}
CONNECTIONS = {"throughput": 32, "latency": 8}


def run(server: Server, kind: str, seed: str, connections: int) -> dict[str, Any]:
    argv = [
        *("taskset", "-c", str(machine.LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s"),
        *("-s", str(HERE / "wrk.lua"), server.url(kind), "--"),
        *(str(server.headers_file), str(server.body_file(kind)), seed),
    ]
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    assert not result["errors"], result
    return result | {"per_second": result["requests"] / result["seconds"]}


def measure(servers: dict[str, Server]) -> list[dict[str, Any]]:
    """Each round begins with another case, and each sample with a second to wake up."""
    rows, cases = [], list(CASES.items())
    for number in range(ROUNDS):
        cases.append(cases.pop(0))
        for kind in (WHOLE, STREAM):
            for case, (system, seed) in cases:
                for what, connections in CONNECTIONS.items():
                    with servers[system].running():
                        run(servers[system], kind, seed, connections)
                        result = run(servers[system], kind, seed, connections)
                    rows.append({"round": number, "kind": kind, "case": case, "what": what, **result})
                    print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Medians, and the rate of each case over that of a miss in the same round."""
    lines = [
        "| answers | case | per second | of a miss | of no Redis | p50 / p99 ms, 8 connections |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for kind in (WHOLE, STREAM):
        for case in CASES:
            fast, slow = (_of(rows, kind, case, what) for what in CONNECTIONS)
            ratios = [_ratio(fast, _of(rows, kind, other, "throughput")) for other in ("miss", "no Redis")]
            rate = statistics.median(row["per_second"] for row in fast)
            p50, p99 = (statistics.median(row[name] for row in slow) for name in ("p50_ms", "p99_ms"))
            cells = (kind, case, f"{rate:,.0f}", *(f"{ratio:.2f}" for ratio in ratios), f"{p50:.2f} / {p99:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _of(rows: list[dict[str, Any]], kind: str, case: str, what: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["kind"], row["case"], row["what"]) == (kind, case, what)]


def _ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    return statistics.median(a["per_second"] / b["per_second"] for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    machine.prepare()
    systems = [system for system in ALL if system.name in (OURS, f"{OURS}+redis")]
    with (
        machine.run_folder() as folder,
        mock.running(folder) as engine,
        redis.running(folder) as redis_url,
        started(systems[0], engine, folder, redis_url) as one,
        started(systems[1], engine, folder, redis_url) as other,
    ):
        servers = {server.name: server for server in (one, other)}
        for server in servers.values():
            check(server)
        rows = measure(servers)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "exact.json").write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")
    (results / "exact.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
