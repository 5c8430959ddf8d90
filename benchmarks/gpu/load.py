"""The load: several `vllm bench serve` side by side, for one of them saturates near 20,000 tokens/s."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Load:
    """Random prompts of `input_tokens`, each answered with exactly `output_tokens` on /v1/chat/completions."""

    concurrency: int
    prompts: int
    input_tokens: int = 128
    output_tokens: int = 256


@dataclass(frozen=True)
class Target:
    """An OpenAI server under load. `tokenizer` is a folder."""

    url: str
    model: str
    tokenizer: Path
    key: str


class Clients:
    """Load generators that are ready; started beside the servers, whose start takes longer.

    Args:
        folder: for their logs and results.
    """

    def __init__(self, folder: Path, count: int = 4) -> None:
        self._folder = folder
        self._logs = [folder / f"client-{number}.log" for number in range(count)]
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for log in self._logs:
            with log.open("w") as output:
                command = [sys.executable, "-m", "benchmarks.gpu.client"]
                pipe = subprocess.PIPE
                self._processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=output, text=True))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def run(self, target: Target, load: Load, label: str) -> dict[str, Any]:
        """Rates summed and latencies averaged over the clients; raises RuntimeError with a failed one's last words."""
        processes = self._processes[: min(load.concurrency, len(self._processes))]
        results = [self._folder / f"{label}-{number}.json" for number in range(len(processes))]
        for number, (process, result) in enumerate(zip(processes, results, strict=True)):
            arguments = _arguments(target, load, len(processes), result, seed=number)
            print(json.dumps([target.key, *arguments]), file=process.stdin, flush=True)
        for process, log in zip(processes, self._logs, strict=False):
            if process.stdout is None or process.stdout.readline() != "done\n":
                raise RuntimeError(f"{label}: {log.read_text()[-800:]}")
        return {"label": label, "load": asdict(load)} | _summed([json.loads(result.read_text()) for result in results])


def _arguments(target: Target, load: Load, clients: int, result: Path, seed: int) -> list[str]:
    options = {
        "--backend": "openai-chat",
        "--endpoint": "/v1/chat/completions",
        "--base-url": target.url,
        "--model": target.model,
        "--tokenizer": target.tokenizer,
        "--dataset-name": "random",
        "--random-input-len": load.input_tokens,
        "--random-output-len": load.output_tokens,
        "--num-prompts": load.prompts // clients,
        "--max-concurrency": load.concurrency // clients,
        "--seed": seed,
        "--result-filename": result,
    }
    return [
        "--ignore-eos",
        "--disable-tqdm",
        "--save-result",
        *(str(word) for option in options.items() for word in option),
    ]


def _summed(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float:
        return round(sum(run[name] for run in runs) / len(runs), 2)

    return {
        "completed": sum(run["completed"] for run in runs),
        "failed": sum(run.get("failed", 0) for run in runs),
        "tokens_per_s": round(sum(run["output_throughput"] for run in runs)),
        **{name: mean(name) for name in ("mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "p99_itl_ms")},
    }
