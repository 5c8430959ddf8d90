"""One replica in two parts, as it spans two nodes: here both lie on this machine, on a core each."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from tests.e2e.conftest import running
from tests.e2e.stack import Stack
from tests.polling import eventually

MODEL, START_S = "halves", 400
# Small enough for a test, and with heads that two can share; its weights are random.
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "head_dim": 64}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def gang(folder: Path, weights: Path) -> Iterator[Stack]:
    home = folder / "gang"
    shape = home / "shape"
    shape.mkdir(parents=True)
    for file in weights.iterdir():
        if file.name != "model.safetensors":
            (shape / file.name).write_bytes(file.read_bytes())
    config = json.loads((shape / "config.json").read_text())
    (shape / "config.json").write_text(json.dumps(config | SHAPE | HEADS))
    model = {"name": MODEL, "engine": "vllm", "source": str(shape), "max_model_len": 512, "nodes": 2}
    options = {"load_format": "dummy", "enforce_eager": True, "dtype": "float32"}
    limits = {"start_timeout_s": START_S, "drain_timeout_s": 2}
    (home / "cluster.yaml").write_text(json.dumps({"models": [model | limits | {"options": options}]}))
    stack = Stack(home, ["--no-chat", "--config", str(home / "cluster.yaml")])
    with running(stack, START_S):
        yield stack


def part(stack: Stack, rank: int) -> psutil.Process:
    found = [p for p in stack.processes() if f"--node-rank {rank}" in " ".join(p.cmdline())]
    (process,) = [p for p in found if "-S" not in p.cmdline()]
    return process


async def tokens(stack: Stack) -> int:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", timeout=120) as sdk:
        answer = await sdk.completions.create(model=MODEL, prompt="One", max_tokens=8, extra_body={"ignore_eos": True})
    return answer.usage.completion_tokens


async def test_two_parts_answer_as_one(gang: Stack) -> None:
    assert part(gang, 0).pid != part(gang, 1).pid
    assert await tokens(gang) == 8


async def test_a_gang_that_loses_a_part_is_replaced_whole(gang: Stack) -> None:
    (before,) = gang.replicas(MODEL)
    first = part(gang, 0)
    os.kill(part(gang, 1).pid, signal.SIGKILL)
    await eventually(lambda: before["id"] not in {replica["id"] for replica in gang.replicas(MODEL)}, within=30)
    # The request comes while there is no replica, and waits for the next.
    assert await tokens(gang) == 8
    assert not first.is_running()
    assert [replica["id"] != before["id"] for replica in gang.replicas(MODEL)] == [True]
