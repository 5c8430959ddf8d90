"""`python -m benchmarks.gpu`: our whole stack beside a bare `vllm serve`, on one GPU, in one run."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.gpu.load import Clients, Load, Target
from benchmarks.gpu.servers import Model, Running, bare, stack

# Concurrency, and how many prompts make a run of some 20 seconds on an H200.
CASES = {
    "smol": (Model("smol", Path("smol"), 1024, 4, 20), [Load(1, 16), Load(256, 2560), Load(1024, 4096)]),
    "gpt2": (Model("gpt2", Path("gpt2"), 1024, 4, 20), [Load(1024, 4096)]),
    "llama13b": (Model("llama13b", Path("llama13b"), 512, 2), [Load(1, 4), Load(96, 384), Load(512, 1024)]),
}


def main() -> None:
    arguments = _arguments()
    folder = arguments.results
    folder.mkdir(parents=True, exist_ok=True)
    model, loads = CASES[arguments.case]
    model = replace(model, folder=arguments.models / model.folder)
    systems = {"bare": bare(model, folder), "stack": stack(model, folder, arguments.gateway, arguments.workers)}
    with Clients(folder) as clients:
        measure = _side_by_side if model.kv_cache_gib else _one_by_one
        samples = measure(systems, model, loads, arguments.rounds, clients)
    report = {"case": arguments.case, "command": sys.argv, "workers": arguments.workers, **_machine(), "runs": samples}
    (folder / f"{arguments.case}.json").write_text(json.dumps(report, indent=1))
    print(table(samples))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--models", type=Path, required=True, help="folder with one folder for each case's model")
    parser.add_argument("--gateway", default=f"{sys.executable} -m", help="runs a module in the gateway's environment")
    parser.add_argument("--workers", type=int, default=2, help="of the gateway")
    parser.add_argument("--rounds", type=int, default=2, help="of systems that run side by side")
    parser.add_argument("--results", type=lambda text: Path(text).absolute(), required=True)
    return parser.parse_args()


Systems = Mapping[str, AbstractContextManager[Running]]


def _side_by_side(
    systems: Systems, model: Model, loads: Sequence[Load], rounds: int, clients: Clients
) -> list[dict[str, Any]]:
    """Both are up and take turns, ABBA: what the machine does meanwhile meets both."""
    with ExitStack() as open_systems:
        running = {name: open_systems.enter_context(system) for name, system in systems.items()}
        for name, system in running.items():
            system.wait_until_ready()
            _warm(name, system, model, clients)
        turns = [(number, name) for number in range(rounds) for name in list(running)[:: -1 if number % 2 else 1]]
        return [_sample(name, running[name], model, load, clients, number) for load in loads for number, name in turns]


def _one_by_one(
    systems: Systems, model: Model, loads: Sequence[Load], rounds: int, clients: Clients
) -> list[dict[str, Any]]:
    """One after the other, each with the whole card."""
    samples = []
    for name, system in systems.items():
        with system as running:
            running.wait_until_ready()
            _warm(name, running, model, clients)
            samples += [_sample(name, running, model, load, clients, n) for load in loads for n in range(rounds)]
    return samples


def _target(running: Running, model: Model) -> Target:
    return Target(running.url, model.name, model.folder, running.key)


def _warm(name: str, running: Running, model: Model, clients: Clients) -> None:
    clients.run(_target(running, model), Load(64, 256), f"{name}-warm")


def _sample(name: str, running: Running, model: Model, load: Load, clients: Clients, number: int) -> dict[str, Any]:
    before, began = running.cpu_s(), time.monotonic()
    sample = clients.run(_target(running, model), load, f"{name}-{load.concurrency}-{number}")
    cpu = {stage: round(after - before.get(stage, 0.0), 2) for stage, after in running.cpu_s().items()}
    sample |= {"system": name, "seconds": round(time.monotonic() - began, 1), "cpu_s": cpu}
    print(json.dumps(sample), flush=True)
    return sample


def _machine() -> dict[str, Any]:
    gpu = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True
    )
    versions = {name: version(name) for name in ("vllm", "ray", "torch")}
    return {"gpu": gpu.stdout.strip(), "cpus": os.cpu_count(), "python": platform.python_version(), **versions}


def table(samples: Sequence[dict[str, Any]]) -> str:
    """Each load's systems side by side; ratios are to the mean of the bare runs."""
    lines = ["| concurrency | system | tok/s | of bare | TTFT mean / p99, ms | of bare | ITL, ms | CPU s by stage |",
             "|--:|---|--:|--:|--:|--:|--:|---|"]  # fmt: skip
    for concurrency in dict.fromkeys(sample["load"]["concurrency"] for sample in samples):
        here = [sample for sample in samples if sample["load"]["concurrency"] == concurrency]
        baseline = [sample for sample in here if sample["system"] == "bare"] or here
        rate, ttft = (mean(sample[name] for sample in baseline) for name in ("tokens_per_s", "mean_ttft_ms"))
        for sample in here:
            cells = (
                concurrency,
                sample["system"],
                f"{sample['tokens_per_s']:,}",
                f"{sample['tokens_per_s'] / rate:.3f}",
                f"{sample['mean_ttft_ms']:.1f} / {sample['p99_ttft_ms']:.1f}",
                f"{sample['mean_ttft_ms'] / ttft:.2f}",
                f"{sample['mean_itl_ms']:.2f}",
                ", ".join(f"{stage} {seconds:g}" for stage, seconds in sample["cpu_s"].items()),
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
