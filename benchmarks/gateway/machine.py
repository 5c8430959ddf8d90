"""The machine it runs on: which core is whose, how busy they are, and what to call the machine in the results."""

import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS = HERE / ".peers"
RESULTS = HERE / "results"


def cores() -> tuple[int, int]:
    """The gateways' core, and the one of the load and the mock engine."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("two cores are needed: one for the gateway, one for the load")
    return allowed[0], allowed[1]


GATEWAY_CORE, LOAD_CORE = cores()


def prepare() -> None:
    """This process moves to the load's core, and it and its children may open as many files as the system lets them."""
    os.sched_setaffinity(0, {LOAD_CORE})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for configurations, sockets and logs; a server that drops its privileges may enter it too."""
    folder = Path(tempfile.mkdtemp(prefix="llmgw-bench-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def children_cpu_s() -> float:
    """CPU seconds of this process's children that have ended: the load generator's, when it is the only one."""
    times = psutil.Process().cpu_times()
    return times.children_user + times.children_system


def own_cpu_s() -> float:
    """CPU seconds of all that belongs to the benchmark."""
    total = children_cpu_s()
    myself = psutil.Process()
    for process in (myself, *myself.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


class CoreUse:
    """How busy the two cores are from here on."""

    def __init__(self) -> None:
        self._start, self._own = psutil.cpu_times(percpu=True), own_cpu_s()

    def shares(self) -> dict[str, float]:
        """Of one core each; `foreign` is what others took of both: a figure is as good as this share is small."""
        own, now = own_cpu_s() - self._own, psutil.cpu_times(percpu=True)
        shares, busy_s = {}, 0.0
        for name, core in (("gateway_core", GATEWAY_CORE), ("load_core", LOAD_CORE)):
            before, after = self._start[core], now[core]
            total = sum(after) - sum(before)
            busy = total - (after.idle + after.iowait - before.idle - before.iowait)
            shares[name] = round(busy / total, 3) if total else 0.0
            busy_s += busy
        shares["foreign"] = round(max(0.0, busy_s - own) / (2 * total), 3) if total else 0.0
        return shares


def _output(*argv: str) -> str:
    try:
        result = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=10, check=False)
    except OSError:
        return ""
    return (result.stdout + result.stderr).strip()


def _commit() -> str:
    """What was measured; the results of another benchmark are no change of it."""
    changed = _output("git", "status", "--porcelain", "-uno", "--", ".", ":(exclude,glob)benchmarks/**/results/**")
    return _output("git", "describe", "--always") + ("-dirty" if changed else "")


def nginx_version() -> str:
    return _output("nginx", "-v").rpartition("/")[2]


def node_version() -> str:
    return _output("node", "--version")


def describe() -> dict[str, object]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        # The interpreter too: one that was built without a profile takes half as long again for the same.
        "python": f"{platform.python_version()} {os.path.realpath(sys.executable)}",
        "wrk": _output("wrk", "-v").partition("Copyright")[0].strip(),
        "nginx": nginx_version(),
        "commit": _commit(),
    }
