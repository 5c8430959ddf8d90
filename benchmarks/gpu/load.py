"""The load: several `vllm bench serve` side by side, for one of them saturates near 20,000 tokens/s."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Load:
    """Random prompts of `input_tokens`, each answered with exactly `output_tokens` on /v1/chat/completions."""

    concurrency: int
    prompts: int
    input_tokens: int = 128
    output_tokens: int = 256
    clients: int = 4

    @property
    def processes(self) -> int:
        return min(self.clients, self.concurrency)


@dataclass(frozen=True)
class Target:
    """An OpenAI server under load. `tokenizer` is a folder."""

    url: str
    model: str
    tokenizer: Path
    key: str


def run(target: Target, load: Load, folder: Path, label: str, timeout_s: float = 300) -> dict[str, Any]:
    """Rates summed and latencies averaged over the clients; raises RuntimeError with a failed one's last words."""
    results = [folder / f"{label}-{number}.json" for number in range(load.processes)]
    logs = [folder / f"{label}-{number}.log" for number in range(load.processes)]
    running = []
    for number, (result, log) in enumerate(zip(results, logs, strict=True)):
        with log.open("w") as output:
            environment = os.environ | {"OPENAI_API_KEY": target.key}
            command = _command(target, load, result, seed=number)
            running.append(subprocess.Popen(command, stdout=output, stderr=output, env=environment))
    for process in running:
        process.wait(timeout_s)
    if missing := [log for result, log in zip(results, logs, strict=True) if not result.exists()]:
        raise RuntimeError(f"{label}: {missing[0].read_text()[-800:]}")
    return {"label": label, "load": asdict(load)} | _summed([json.loads(result.read_text()) for result in results])


def _command(target: Target, load: Load, result: Path, seed: int) -> list[str]:
    options = {
        "--backend": "openai-chat",
        "--endpoint": "/v1/chat/completions",
        "--base-url": target.url,
        "--model": target.model,
        "--tokenizer": target.tokenizer,
        "--dataset-name": "random",
        "--random-input-len": load.input_tokens,
        "--random-output-len": load.output_tokens,
        "--num-prompts": load.prompts // load.processes,
        "--max-concurrency": load.concurrency // load.processes,
        "--seed": seed,
        "--result-filename": result,
    }
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--ignore-eos", "--disable-tqdm"]
    return [*command, "--save-result", *(str(word) for option in options.items() for word in option)]


def _summed(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float:
        return round(sum(run[name] for run in runs) / len(runs), 2)

    return {
        "completed": sum(run["completed"] for run in runs),
        "failed": sum(run.get("failed", 0) for run in runs),
        "tokens_per_s": round(sum(run["output_throughput"] for run in runs)),
        **{name: mean(name) for name in ("mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "p99_itl_ms")},
    }
