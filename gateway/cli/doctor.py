"""`llmgw doctor`: what is here, what is missing, and what `llmgw up` would use."""

import asyncio
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import typer

from gateway.cli import embedded_redis, ports
from gateway.cli.up import default_cluster
from gateway.redis_channel import RedisUnavailable
from gateway.redis_link import RedisLink
from gateway.server import connection
from gateway.settings import ConfigError, Settings

_PACKAGES = ("fastapi", "langchain", "langserve", "semantic-kernel", "ray", "redis", "xllamacpp", "gradio")

# It takes seconds; where the driver hangs, for ever.
GPU_TOOL_S = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `remedy` is set when something needed is missing."""

    subject: str
    fact: str
    remedy: str | None = None


def examine(config: Path | None) -> int:
    """Prints the findings. Returns the exit status: 1 when something needed is missing."""
    findings = [*_machine(), *_packages(), *_cluster(config)]
    for finding in findings:
        mark = "✗" if finding.remedy else "✓"
        typer.echo(f"  {mark} {finding.subject:<16} {finding.fact}")
        if finding.remedy:
            typer.echo(f"{'':<21}{finding.remedy}")
    return 1 if any(finding.remedy for finding in findings) else 0


def _machine() -> Iterator[Finding]:
    python = platform.python_version()
    yield Finding("Python", python, None if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed")
    memory = psutil.virtual_memory().available / 2**30
    yield Finding("machine", f"{len(os.sched_getaffinity(0))} CPUs, {memory:.1f} GiB of memory free")
    for tool, query in (("nvidia-smi", "--list-gpus"), ("rocm-smi", "--showproductname")):
        if shutil.which(tool):
            yield _gpus(tool, query)


def _gpus(tool: str, query: str) -> Finding:
    try:
        listed = subprocess.run([tool, query], capture_output=True, text=True, check=False, timeout=GPU_TOOL_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("GPU", f"{tool} does not answer", f"look after the driver: {error}")
    return Finding("GPU", listed.stdout.strip() or listed.stderr.strip())


def _packages() -> Iterator[Finding]:
    interpreted = connection.__file__.endswith(".py")
    yield Finding("gateway", "interpreted, as in any clone; `make wheel` compiles it" if interpreted else "compiled")
    for name in _PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", "run `make serve`, or install requirements.lock")


def _cluster(config: Path | None) -> Iterator[Finding]:
    try:
        path = config or default_cluster()
        settings = Settings.load(config=path)
    except ConfigError as error:
        yield Finding("configuration", str(error), "correct the cluster file or the environment")
        return
    yield Finding("cluster file", str(path))
    yield Finding("models", ", ".join(settings.models) or "none configured", _cannot_start(path))
    yield Finding("API keys", str(len(settings.keys)) if settings.keys else "none: loopback only")
    yield _redis(settings)
    try:
        ports.check_free(settings.host, settings.port, "--port")
        yield Finding("address", f"{settings.host}:{settings.port} is free")
    except ConfigError as error:
        yield Finding("address", "taken", str(error))


def _redis(settings: Settings) -> Finding:
    if settings.redis_url is None:
        try:
            return Finding("Redis", f"embedded, {embedded_redis.server_path()}")
        except ConfigError as error:
            return Finding("Redis", "missing", str(error))
    try:
        asyncio.run(RedisLink(settings.redis_url.get_secret_value()).check())
    except RedisUnavailable as error:
        return Finding("Redis", "yours, as `redis_url` says", f"no gateway can use it: {error}")
    return Finding("Redis", "yours, as `redis_url` says; it answers")


def _cannot_start(cluster: Path) -> str | None:
    """Why the backend could not start this cluster here, in its own words: models, memory, CPUs."""
    argv = [sys.executable, "-m", "backend.cluster", "--check", "--config", str(cluster)]
    environment = {"LLMGW_ENGINE_KEY": "none", **os.environ}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    if done.returncode == 0:
        return None
    try:
        return str(json.loads(done.stdout)["message"])
    except (json.JSONDecodeError, KeyError):
        return done.stderr.strip().rpartition("\n")[2]
