"""What `llmgw up` and `llmgw doctor` make of a part that prints what it likes, does not start or does not answer."""

import json
import os
import sys
from pathlib import Path

import pytest

from gateway.cli import doctor, embedded_redis, ports
from gateway.cli.process import Process

EVENT = {"event": "ready"}


async def started(folder: Path, *argv: str) -> Process:
    return await Process.start("part", argv, os.environ, folder / "part.log", 5.0)


@pytest.mark.parametrize("printed", ["'x' * 200_000", "'[' * 50_000", "'{'", "5", "'no JSON'"])
async def test_what_a_part_prints_beside_its_events_ends_nothing(tmp_path: Path, printed: str) -> None:
    part = await started(tmp_path, sys.executable, "-c", f"print({printed}); print({json.dumps(EVENT)!r})")
    assert [event async for event in part.events()] == [EVENT]
    assert await part.ended() == 0


async def test_a_redis_that_does_not_start_says_why(tmp_path: Path) -> None:
    log = tmp_path / "appendonlydir"
    log.mkdir()
    (log / "appendonly.aof.manifest").write_text("file appendonly.aof.1.base.rdb seq 1 type b\n")
    (log / "appendonly.aof.1.base.rdb").write_text("garbage")
    redis = await started(tmp_path, *embedded_redis.command(tmp_path / "redis.sock", tmp_path))
    assert await redis.ended() != 0
    assert "Bad file format" in redis.last_words()


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("0.0.0.0", "http://127.0.0.1:80")],
)
def test_an_address_to_listen_on_is_one_to_ask(host: str, url: str) -> None:
    assert ports.url(ports.reachable(host), 80) == url


def test_a_gpu_tool_that_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 300\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "GPU_TOOL_S", 0.2)
    (finding,) = [finding for finding in doctor._machine() if finding.remedy]
    assert finding.fact == "nvidia-smi does not answer"
