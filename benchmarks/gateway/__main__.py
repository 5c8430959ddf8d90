"""`python -m benchmarks.gateway`: runs the comparison and writes results/."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gateway import load, machine, measure, mock, profiling, redis, report, scaling, slow_streams
from benchmarks.gateway.check import Shape, check
from benchmarks.gateway.dialect import WHOLE, WrongAnswer
from benchmarks.gateway.load import Load
from benchmarks.gateway.mock import Mock
from benchmarks.gateway.process import StartFailed
from benchmarks.gateway.server import Server, started
from benchmarks.gateway.systems import ALL, CLONE, OURS, NotInstalled, System

FAILURES = (StartFailed, NotInstalled, WrongAnswer, OSError)
SKIPPABLE = (*measure.loads(1), "memory", "scaling", "profile")


def _arguments() -> argparse.Namespace:
    def names(known: Sequence[str]):
        def split(text: str) -> list[str]:
            if unknown := set(text.split(",")) - set(known):
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
            return text.split(",")

        return split

    systems = [system.name for system in ALL]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--systems", type=names(systems), default=systems, help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each run of the load generator")
    parser.add_argument("--streams", type=int, default=1000, help="open streams of the memory measure")
    parser.add_argument("--skip", type=names(SKIPPABLE), default=[], help=f"of {', '.join(SKIPPABLE)}")
    parser.add_argument("--results", type=lambda text: Path(text).absolute(), default=machine.RESULTS)
    return parser.parse_args()


@contextmanager
def _bench(folder: Path) -> Iterator[tuple[Mock, str]]:
    with mock.running(folder) as engine, redis.running(folder) as redis_url:
        yield engine, redis_url


def _start_all(
    stack: ExitStack, systems: Sequence[System], engine: Mock, folder: Path, redis_url: str, failed: dict[str, str]
) -> tuple[list[Server], dict[str, Shape]]:
    """Those that start and answer rightly, paused; the others' errors go to `failed`."""
    servers, shapes = [], {}
    for system in systems:
        try:
            with ExitStack() as own:
                server = own.enter_context(started(system, engine, folder, redis_url))
                shapes[system.name] = check(server)
                load.run(server, Load(WHOLE, 32, 2))
                stack.push(own.pop_all())
        except FAILURES as error:
            failed[system.name] = f"{type(error).__name__}: {error}"
            print(f"{system.name} failed: {error}", file=sys.stderr)
            continue
        if server.process:
            server.process.pause()
        servers.append(server)
    return servers, shapes


def _memory(servers: Sequence[System], engine: Mock, folder: Path, redis_url: str, count: int) -> dict[str, Any]:
    """Each alone: pages that two systems share would count half."""
    memory: dict[str, Any] = {}
    for system in servers:
        if system.launch is None:
            continue
        with started(system, engine, folder, redis_url) as server:
            memory[system.name] = {"asked": count} | slow_streams.memory(server, count)
        print(f"memory   {system.name:14} {memory[system.name]}", file=sys.stderr, flush=True)
    return memory


def _run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    systems = [system for system in ALL if system.name in arguments.systems]
    results: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.gateway", *sys.argv[1:]]),
        "machine": machine.describe(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "versions": {system.name: system.version() for system in systems},
        "failed": {},
        "memory": {},
    }
    with _bench(folder) as (engine, redis_url):
        with ExitStack() as stack:
            servers, shapes = _start_all(stack, systems, engine, folder, redis_url, results["failed"])
            samples = measure.rounds(servers, shapes, arguments.rounds, arguments.seconds, arguments.skip)
            results |= {"summary": report.summarise(samples), "foreign": report.foreign(samples), "samples": samples}
        able = [server.system for server in servers]
        if "memory" not in arguments.skip:
            results["memory"] = _memory(able, engine, folder, redis_url, arguments.streams)
        by_name = {system.name: system for system in able}
        # The clone, for a profiler of Python sees nothing of what is compiled.
        if CLONE in by_name and "profile" not in arguments.skip:
            with started(by_name[CLONE], engine, folder, redis_url) as server:
                profiling.profile(server, arguments.results)
    if OURS in by_name and "scaling" not in arguments.skip:
        results["scaling"] = scaling.measure(folder, arguments.rounds, arguments.seconds)
    return results


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started is stopped
    arguments = _arguments()
    arguments.results.mkdir(exist_ok=True)
    machine.prepare()
    with machine.run_folder() as folder:
        results = _run(arguments, folder)
    print(report.write(results, arguments.results))


if __name__ == "__main__":
    main()
