"""A llama.cpp engine server as the gateway meets it: real process, real weights, the public routes."""

import asyncio
import base64
import json
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from backend.engines import engines
from backend.engines.base import Load, Place
from backend.ports import LOOPBACK, free_port
from backend.server import EngineServer
from backend.spec import ModelSpec
from tests.backend.conftest import AUTH, KEY

HELLO = [{"role": "user", "content": "Say hello."}]
REFERENCE = json.loads(Path(__file__).with_name("minilm_reference.json").read_text(encoding="utf-8"))


def endless(**more: Any) -> dict[str, Any]:
    """A chat that would go on for minutes."""
    return {"messages": HELLO, "max_tokens": 3500, "ignore_eos": True, **more}


def long_prompt(**more: Any) -> dict[str, Any]:
    """A chat whose prefill takes seconds, with no beginning in common with another's."""
    text = " ".join(str(random.randrange(1000)) for _ in range(900))
    return endless(**more) | {"messages": [{"role": "user", "content": text}]}


def chunks(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_a_whole_chat_answer(chat_client: httpx.AsyncClient) -> None:
    answer = (
        await chat_client.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 8, "temperature": 0})
    ).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "smollm2-135m-instruct"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] in {"length", "stop"}
    assert answer["usage"]["completion_tokens"] <= 8


async def test_an_answer_without_a_bound_gets_the_models_own(default_models: dict[str, ModelSpec]) -> None:
    spec = default_models["chat"].model_copy(update={"max_model_len": 256, "options": {"max_answer_tokens": 16}})
    server = await EngineServer.start(spec, engines()[spec.engine], Place(LOOPBACK, free_port(), threads=1))
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=AUTH, timeout=60) as client:
            for bound, tokens in (({}, 16), ({"max_tokens": 24}, 24)):
                asked = {"messages": HELLO, "ignore_eos": True, **bound}
                answer = (await client.post("/v1/chat/completions", json=asked)).json()
                assert answer["usage"]["completion_tokens"] == tokens
                assert answer["choices"][0]["finish_reason"] == "length"
    finally:
        await server.stop()


async def test_a_stream_says_the_same_as_the_whole(chat_client: httpx.AsyncClient) -> None:
    request = {"messages": HELLO, "max_tokens": 8, "temperature": 0, "seed": 1}
    whole = (await chat_client.post("/v1/chat/completions", json=request)).json()
    response = await chat_client.post(
        "/v1/chat/completions", json=request | {"stream": True, "stream_options": {"include_usage": True}}
    )
    assert response.headers["content-type"].startswith("text/event-stream")
    events = chunks(response.text)
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert len({event["id"] for event in events}) == 1
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert not any("prompt_progress" in event for event in events)


async def test_logprobs_of_a_whole_answer_cover_all_its_tokens(chat_client: httpx.AsyncClient) -> None:
    request = {
        "messages": HELLO,
        "max_tokens": 4,
        "logprobs": True,
        "top_logprobs": 2,
        "ignore_eos": True,
        "temperature": 0,
    }
    choice = (await chat_client.post("/v1/chat/completions", json=request)).json()["choices"][0]
    assert len(choice["logprobs"]["content"]) == 4
    assert "".join(token["token"] for token in choice["logprobs"]["content"]) == choice["message"]["content"]


async def test_several_prompts_give_several_choices_in_order(chat_client: httpx.AsyncClient) -> None:
    request = {"prompt": ["One, two,", "Red, green,"], "max_tokens": 3}
    answer = (await chat_client.post("/v1/completions", json=request)).json()
    assert answer["object"] == "text_completion"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert all(choice["text"] for choice in answer["choices"])


async def test_a_partial_answer_is_continued(chat_client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "Count from one to five."}, {"role": "assistant", "content": "One, two,"}]
    request = {"messages": messages, "max_tokens": 4, "temperature": 0}
    answer = (await chat_client.post("/v1/chat/completions", json=request)).json()
    assert answer["choices"][0]["message"]["content"].lstrip().lower().startswith("three")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/chat/completions", b"{", None),
        ("/v1/chat/completions", b"[]", None),
        ("/v1/chat/completions", b"{}", None),
        ("/v1/chat/completions", b'{"messages": "text"}', None),
        ("/v1/chat/completions", json.dumps({"messages": HELLO, "max_tokens": "many"}).encode(), None),
        ("/v1/chat/completions", json.dumps({"messages": HELLO, "tools": "hammer"}).encode(), None),
        ("/v1/completions", json.dumps({"prompt": "a", "n_probs": 1e6}).encode(), None),
        ("/v1/completions", json.dumps({"prompt": "a", "dry_sequence_breakers": ["a"] * 33}).encode(), None),
        (
            "/v1/chat/completions",
            json.dumps({"messages": [{"role": "user", "content": "word " * 5000}]}).encode(),
            "context_length_exceeded",
        ),
        (
            "/v1/completions",
            json.dumps({"prompt": "word " * 5000, "stream": True}).encode(),
            "context_length_exceeded",
        ),
    ],
)
async def test_a_bad_request_is_a_400_and_never_cut_to_fit(
    chat_client: httpx.AsyncClient, path: str, body: bytes, code: str | None
) -> None:
    response = await chat_client.post(path, content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code
    assert error["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/slots", "/v1/chat/completions", "/anything"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"api-key": KEY}])
async def test_nothing_but_the_health_answers_without_the_key(
    chat_engine: EngineServer, path: str, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=chat_engine.url, headers=headers) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.post(path, json={})).status_code == 401
        assert (await client.get("/health")).json() == {"status": "ok"}


async def test_the_models_route_names_the_model(chat_client: httpx.AsyncClient) -> None:
    (card,) = (await chat_client.get("/v1/models")).json()["data"]
    assert card["id"] == "smollm2-135m-instruct"
    assert card["max_model_len"] == 4096


# --- a client that goes away --------------------------------------------------------------------------------------


@asynccontextmanager
async def abandoned(engine: EngineServer, request: dict[str, Any]) -> AsyncIterator[None]:
    """A request whose connection is closed at the end of the block, whatever the engine has answered by then."""
    body = json.dumps(request).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = engine.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body)
    await writer.drain()
    try:
        yield
    finally:
        writer.close()


async def load_is(engine: EngineServer, running: int, waiting: int = 0) -> None:
    async with asyncio.timeout(20):
        while (load := await engine.load()) != Load(running, waiting):
            await asyncio.sleep(0.02)
    assert load


@pytest.mark.parametrize("request_of", [endless, long_prompt], ids=["decode", "prefill"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside-another-stream"])
async def test_a_client_that_goes_away_frees_its_slot(
    chat_engine: EngineServer, request_of: Callable[..., dict[str, Any]], stream: bool, others: int
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(others):
            await stack.enter_async_context(abandoned(chat_engine, endless(stream=True)))
        await load_is(chat_engine, running=others)
        async with abandoned(chat_engine, request_of(stream=stream)):
            await load_is(chat_engine, running=others + 1)
        await load_is(chat_engine, running=others)
    await load_is(chat_engine, running=0)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_goes_away_leaves_the_queue(chat_engine: EngineServer, stream: bool) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(abandoned(chat_engine, endless(stream=True)))
        await load_is(chat_engine, running=4)
        async with abandoned(chat_engine, endless(stream=stream)):
            await load_is(chat_engine, running=4, waiting=1)
        await load_is(chat_engine, running=4, waiting=0)
    await load_is(chat_engine, running=0)


# --- embeddings ---------------------------------------------------------------------------------------------------


async def test_embeddings_are_those_of_transformers(embeddings_client: httpx.AsyncClient) -> None:
    response = await embeddings_client.post("/v1/embeddings", json={"input": [entry["text"] for entry in REFERENCE]})
    answer = response.json()
    assert [item["index"] for item in answer["data"]] == list(range(len(REFERENCE)))
    assert answer["usage"]["prompt_tokens"] == sum(entry["tokens"] for entry in REFERENCE)
    for entry, item in zip(REFERENCE, answer["data"], strict=True):
        assert len(item["embedding"]) == 384
        assert sum(value**2 for value in item["embedding"]) == pytest.approx(1, abs=1e-3)
        cosine = sum(a * b for a, b in zip(entry["embedding"], item["embedding"], strict=True))
        assert cosine > 0.9999, entry["text"]


async def test_the_openai_sdk_reads_embeddings_in_its_base64(embeddings_engine: EngineServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{embeddings_engine.url}/v1", api_key=KEY) as client:
        answer = await client.embeddings.create(model="all-minilm-l6-v2", input=REFERENCE[0]["text"])
    assert answer.data[0].embedding == pytest.approx(REFERENCE[0]["embedding"], abs=2e-3)


async def test_base64_holds_the_same_floats(embeddings_client: httpx.AsyncClient) -> None:
    async def embed(**more: str) -> Any:
        response = await embeddings_client.post("/v1/embeddings", json={"input": "the same", **more})
        return response.json()["data"][0]["embedding"]

    packed = base64.b64decode(await embed(encoding_format="base64"))
    assert list(struct.unpack("<384f", packed)) == pytest.approx(await embed(), abs=1e-6)


@pytest.mark.parametrize(("text", "code"), [("word " * 511, "context_length_exceeded"), ([], None), ({"a": 1}, None)])
async def test_a_text_that_cannot_be_embedded_is_a_400(
    embeddings_client: httpx.AsyncClient, text: Any, code: str | None
) -> None:
    response = await embeddings_client.post("/v1/embeddings", json={"input": text})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code


async def test_the_longest_text_fits(embeddings_client: httpx.AsyncClient) -> None:
    response = await embeddings_client.post("/v1/embeddings", json={"input": "word " * 510})
    assert response.json()["usage"]["prompt_tokens"] == 512


async def test_an_embeddings_model_does_not_chat(embeddings_client: httpx.AsyncClient) -> None:
    response = await embeddings_client.post("/v1/chat/completions", json={"messages": HELLO}, headers=AUTH)
    assert response.status_code == 404
