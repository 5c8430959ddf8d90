"""`python -m benchmarks.gateway.factor --results FILE`: what a second worker brings.

Two full cores for the workers, and more for mock engine and load, few machines have free. So each worker may use the
same part of a core (a control group's quota; root is needed), which leaves the others more than they need: one worker
with its part against two with theirs. Rounds take both counts in turn; the factors are formed within a round.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gateway import machine, mock
from benchmarks.gateway.dialect import STREAM, WHOLE
from benchmarks.gateway.load import Load, parse
from benchmarks.gateway.mock import Mock
from benchmarks.gateway.server import Server, started
from benchmarks.gateway.systems import ALL, OURS

_WORKERS = (1, 2)
_CONNECTIONS = 64  # the kernel spreads them over the workers by hash
_PERIOD_US, _QUOTA_US = 10_000, 2_500
_GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def _limited(pid: int) -> Iterator[None]:
    """The process may use _QUOTA_US of every _PERIOD_US; with control groups of version 1 or 2."""
    old = (_GROUPS / "cpu").is_dir()
    group = (_GROUPS / "cpu" if old else _GROUPS) / f"llmgw-factor-{pid}"
    group.mkdir()
    if old:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(_QUOTA_US))
    else:
        (group / "cpu.max").write_text(f"{_QUOTA_US} {_PERIOD_US}")
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _run(server: Server, kind: str, seconds: int) -> dict[str, Any]:
    command = Load(kind, _CONNECTIONS, seconds).command(server)[3:]  # without the pin
    before = server.cpu_s()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = parse(output)
    used = server.cpu_s() - before
    return {
        "kind": kind,
        "per_second": result["requests"] / result["seconds"],
        "non_2xx": result["non_2xx"],
        "gateway_us": used / result["requests"] * 1e6,
        "cores": used / result["seconds"],
    }


def _round(engine: Mock, folder: Path, seconds: int) -> list[dict[str, Any]]:
    system, both = next(system for system in ALL if system.name == OURS), machine.cores()
    samples = []
    for workers in _WORKERS:
        with started(system, engine, folder, "", both, workers) as server, ExitStack() as limits:
            assert server.process is not None
            _, *forked = server.process.tree()
            for process in forked:
                limits.enter_context(_limited(process.pid))
            for kind in (WHOLE, STREAM):
                _run(server, kind, 2)
                samples.append({"workers": len(forked)} | _run(server, kind, seconds))
    return samples


def _factors(rounds: Sequence[Sequence[dict[str, Any]]]) -> dict[str, list[float]]:
    factors: dict[str, list[float]] = {WHOLE: [], STREAM: []}
    for samples in rounds:
        rates = {(sample["kind"], sample["workers"]): sample["per_second"] for sample in samples}
        for kind, found in factors.items():
            found.append(round(rates[kind, 2] / rates[kind, 1], 3))
    return factors


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.factor", description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    with machine.run_folder() as folder, mock.running(folder, machine.cores()) as engine:
        rounds = [_round(engine, folder, arguments.seconds) for _ in range(arguments.rounds)]
    factors = _factors(rounds)
    command = " ".join(["python -m benchmarks.gateway.factor", *sys.argv[1:]])
    report = {"command": command, "machine": machine.describe(), "quota": _QUOTA_US / _PERIOD_US,
              "rounds": rounds, "factors": factors}  # fmt: skip
    arguments.results.write_text(json.dumps(report, indent=1))
    print({kind: statistics.median(found) for kind, found in factors.items()})


if __name__ == "__main__":
    main()
