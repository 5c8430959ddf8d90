"""Where our worker spends its time under whole answers: a flame graph, and the top functions by their own time."""

import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks.gateway.dialect import WHOLE
from benchmarks.gateway.load import Load
from benchmarks.gateway.machine import PEERS
from benchmarks.gateway.server import Server

_RATE_HZ = 250
_TOP = 25


def _record(pid: int, style: str, target: Path, seconds: int) -> None:
    sampling = ["--duration", str(seconds), "--rate", str(_RATE_HZ), "--format", style, "--threads"]
    command = [str(PEERS / "tools" / "bin" / "py-spy"), "record", "--pid", str(pid), *sampling, "--output", str(target)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _busiest(processes: list[psutil.Process]) -> psutil.Process:
    """The worker, not what supervises it: the imports before the fork are the supervisor's time."""
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(2)
    used = [sum(process.cpu_times()[:2]) - start for process, start in zip(processes, before, strict=True)]
    return processes[used.index(max(used))]


def profile(server: Server, results: Path, seconds: int = 10) -> None:
    """Writes profile.svg, and profile.txt with the folded stacks' top."""
    assert server.process is not None
    folded = server.folder / "folded.txt"
    load = subprocess.Popen(
        Load(WHOLE, 32, 2 * seconds + 5).command(server), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        worker = _busiest(server.process.tree())
        _record(worker.pid, "flamegraph", results / "profile.svg", seconds)
        _record(worker.pid, "raw", folded, seconds)
    finally:
        load.terminate()
        load.wait()
    (results / "profile.txt").write_text(top(folded.read_text()))


def top(folded: str) -> str:
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        if "MainThread" not in thread:  # a thread that waits in a read looks busy to py-spy
            continue
        own[frames[-1]] += int(count)
        inclusive.update(dict.fromkeys(frames, int(count)))
    total = sum(own.values()) or 1
    rows = [f"{'own':>6} {'with callees':>13}  function, {total} samples at {_RATE_HZ} Hz"]
    rows += [f"{n / total:6.1%} {inclusive[name] / total:13.1%}  {name}" for name, n in own.most_common(_TOP)]
    return "\n".join(rows) + "\n"
