"""`python -m benchmarks.gpu`: our whole stack beside a bare `vllm serve`, on one GPU, in one run."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.gpu.load import Load, Target, run
from benchmarks.gpu.servers import Model, Running, bare, stack

# Concurrency, and how many prompts make a run of some 20 seconds on an H200.
CASES = {
    "smol": (Model("smol", Path("smol"), 1024, 4), [Load(1, 16), Load(256, 4096), Load(1024, 6144)]),
    "gpt2": (Model("gpt2", Path("gpt2"), 1024, 4), [Load(1024, 8192)]),
    "llama13b": (Model("llama13b", Path("llama13b"), 512, 2), [Load(1, 4), Load(96, 384), Load(512, 1024)]),
}


def main() -> None:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    model, loads = CASES[arguments.case]
    model = Model(model.name, arguments.models / model.folder, model.max_num_seqs, model.api_servers)
    samples: list[dict[str, Any]] = []
    for number, system in enumerate(arguments.systems):
        with (
            bare(model, arguments.results)
            if system == "bare"
            else stack(model, arguments.results, arguments.gateway, arguments.workers)
        ) as running:
            samples += _measure(system, f"{number}-{system}", running, model, loads, arguments.results)
    report = {"case": arguments.case, "command": sys.argv, "workers": arguments.workers, **_machine(), "runs": samples}
    (arguments.results / f"{arguments.case}.json").write_text(json.dumps(report, indent=1))
    print(table(samples))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--models", type=Path, required=True, help="folder with one folder for each case's model")
    parser.add_argument("--gateway", default=f"{sys.executable} -m", help="runs a module in the gateway's environment")
    parser.add_argument("--workers", type=int, default=2, help="of the gateway")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=["bare", "stack", "bare"])
    parser.add_argument("--results", type=lambda text: Path(text).absolute(), required=True)
    return parser.parse_args()


def _measure(
    system: str, label: str, running: Running, model: Model, loads: Sequence[Load], folder: Path
) -> list[dict[str, Any]]:
    target = Target(running.url, model.name, model.folder, running.key)
    run(target, Load(64, 256), folder, f"{label}-warm")
    samples = []
    for load in loads:
        before, began = running.cpu_s(), time.monotonic()
        sample = run(target, load, folder, f"{label}-{load.concurrency}")
        cpu = {stage: round(after - before.get(stage, 0.0), 2) for stage, after in running.cpu_s().items()}
        samples.append(sample | {"system": system, "seconds": round(time.monotonic() - began, 1), "cpu_s": cpu})
        print(json.dumps(samples[-1]), flush=True)
    return samples


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
