"""What is measured: a bare `vllm serve`, and the same model behind Ray Serve and the gateway."""

import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

START_S = 400.0


@dataclass(frozen=True)
class Model:
    """One model: a folder with random weights' config and a tokenizer.

    Attributes:
        kv_cache_gib: its KV cache, where two of it fit on the card beside each other; else one takes all there is.
    """

    name: str
    folder: Path
    max_num_seqs: int
    api_servers: int
    kv_cache_gib: int | None = None
    max_model_len: int = 1024

    @property
    def memory_options(self) -> list[str]:
        if not self.kv_cache_gib:
            return []
        # The first only has to pass vLLM's check that so much is free.
        return ["--gpu-memory-utilization", "0.4", "--kv-cache-memory-bytes", str(self.kv_cache_gib * 2**30)]


@dataclass
class Running:
    """A system that was started.

    Attributes:
        ready_url: answers 200 once it is ready.
        parts: its processes by stage.
        logs: what they write.
    """

    url: str
    key: str
    ready_url: str
    parts: dict[str, subprocess.Popen[bytes]]
    logs: dict[str, Path]

    def wait_until_ready(self) -> None:
        """Raises RuntimeError when one of the processes ends before that, or it takes too long."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and all(process.poll() is None for process in self.parts.values()):
            with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(self.ready_url, timeout=2) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.5)
        words = "\n".join(log.read_text(errors="replace")[-2000:] for log in self.logs.values())
        raise RuntimeError(f"{self.ready_url} did not answer: {words}")

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far by stage; vLLM's are told apart by the names that its processes give themselves."""
        used: dict[str, float] = {}
        for part, process in self.parts.items():
            root = psutil.Process(process.pid)
            for member in [root, *root.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    stage = _stage(part, " ".join(member.cmdline()))
                    used[stage] = used.get(stage, 0.0) + sum(member.cpu_times()[:2])
        return used


def _stage(part: str, command: str) -> str:
    if "EngineCore" in command or ("Worker" in command and "VLLM" in command):
        return "vllm engine"
    if "VLLM::" in command or "vllm.entrypoints" in command:
        return "vllm api servers"
    return part


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def bare(model: Model, folder: Path) -> Iterator[Running]:
    """`vllm serve`, as its manual has it."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model.folder)]
    command += ["--served-model-name", model.name, "--load-format", "dummy", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", str(model.max_model_len), "--max-num-seqs", str(model.max_num_seqs)]
    command += ["--api-server-count", str(model.api_servers), *model.memory_options]
    log, url = folder / f"{model.name}-bare.log", f"http://127.0.0.1:{port}"
    with _process(command, log) as process:
        yield Running(url, "none", f"{url}/health", {"vllm api servers": process}, {"bare": log})


@contextmanager
def stack(model: Model, folder: Path, gateway: str, workers: int) -> Iterator[Running]:
    """Redis, Ray Serve with vLLM, and the gateway with a key, metrics and a request limit.

    Args:
        gateway: the command that runs a module in the gateway's environment, such as `.venv/bin/python -m`.
    """
    port, redis_port, key = free_port(), free_port(), secrets.token_hex(16)
    config = folder / f"{model.name}.yaml"
    config.write_text(json.dumps(_cluster(model, key)))
    environment = {
        "LLMGW_ENGINE_KEY": secrets.token_hex(16),
        "LLMGW_REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "LLMGW_CONFIG": str(config),
        "LLMGW_HOME": str(folder / "home"),
        "LLMGW_VLLM_PYTHON": sys.executable,
    }
    redis = [*shlex.split(gateway), "benchmarks.gpu.redis", str(redis_port)]
    backend = [sys.executable, "-m", "backend", "--config", str(config)]
    front = [*shlex.split(gateway), "gateway.cli", "gateway", "--port", str(port), "--workers", str(workers)]
    logs = {part: folder / f"{model.name}-{part}.log" for part in ("redis", "backend", "gateway")}
    with ExitStack() as running:
        parts = {
            part: running.enter_context(_process(command, logs[part], environment))
            for part, command in {"redis": redis, "backend": backend, "gateway": front}.items()
        }
        parts["ray"] = parts.pop("backend")
        url = f"http://127.0.0.1:{port}"
        yield Running(url, key, f"{url}/health/ready", parts, logs)


def _cluster(model: Model, key: str) -> dict[str, Any]:
    spec = {
        "name": model.name,
        "engine": "vllm",
        "source": str(model.folder),
        "max_model_len": model.max_model_len,
        "max_num_seqs": model.max_num_seqs,
        "resources": {"num_cpus": 4, "num_gpus": 1},
        "options": {
            "load_format": "dummy",
            "api_server_count": model.api_servers,
            "extra_args": model.memory_options,
        },
        "start_timeout_s": START_S,
    }
    known = {
        "name": "bench",
        "tenant": "bench",
        "hash": f"sha256:{sha256(key.encode()).hexdigest()}",
        "requests_per_minute": 10_000_000,
    }
    return {"models": [spec], "gateway": {"keys": [known]}}


@contextmanager
def _process(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=os.environ | dict(environment or {})
        )
    try:
        yield process
    finally:
        root = psutil.Process(process.pid) if process.poll() is None else None
        family = [root, *root.children(recursive=True)] if root else []
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(40)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
