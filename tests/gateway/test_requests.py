"""Requests for a completion: which are refused, and what the others reserve, as their answers tell it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.limits.test_doors import key
from tests.gateway.raw_server import raw_server, sized

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")

CHAT, COMPLETIONS, EMBEDDINGS, SCORE, RERANK = (
    f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "score", "rerank")
)
LIMIT = 10**6
HI = {"messages": [{"role": "user", "content": "hi"}]}
IDS = list(range(3000))
TEXT = "word " * 800  # a thousand tokens


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with raw_server(sized(b'{"object":"list","choices":[]}')) as engine:
        tasks = ["chat", "completions", "embeddings", "score"]
        upstream = {"model": "m", "url": engine.url, "tasks": tasks, "max_model_len": 4000}
        settings = Settings.load(upstreams=[upstream], keys=[key("alice", tokens_per_minute=LIMIT)], workers=1)
        headers = {"authorization": "Bearer sk-alice"}
        async with served(create_app(settings)) as base, httpx.AsyncClient(base_url=base, headers=headers) as client:
            yield client


@pytest.mark.parametrize(
    ("path", "body", "reserved"),
    [
        (CHAT, HI | {"max_tokens": 3000, "max_completion_tokens": 7}, 7),
        (COMPLETIONS, {"prompt": "hi", "max_tokens": 3000, "max_completion_tokens": 7}, 3000),
        (COMPLETIONS, {"prompt": IDS, "max_tokens": 1}, 3001),
        (COMPLETIONS, {"prompt": [IDS, IDS], "max_tokens": 1}, 6002),
        (COMPLETIONS, {"prompt": ["hi", TEXT], "max_tokens": 1}, 1002),
        (EMBEDDINGS, {"input": IDS}, 3000),
        (EMBEDDINGS, {"input": [IDS, IDS]}, 6000),
        (EMBEDDINGS, {"input": TEXT, "prompt": ""}, 1000),
        (SCORE, {"text_1": TEXT, "text_2": [TEXT, TEXT]}, 3000),
        (RERANK, {"query": TEXT, "documents": [TEXT, TEXT]}, 3000),
    ],
)
async def test_a_request_reserves_what_it_asks_for(client, path, body, reserved):
    answer = await client.post(path, json={"model": "m"} | body)
    assert answer.status_code == 200
    assert LIMIT - int(answer.headers["x-ratelimit-remaining-tokens"]) == reserved


@pytest.mark.parametrize(("path", "body"), [(CHAT, HI), (COMPLETIONS, {"prompt": "hi"})])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("max_completion_tokens", "min_tokens") for value in (-(10**9), "5", [1])),
        ("response_format", "json"),
    ],
)
async def test_what_the_gateway_computes_with_is_checked(client, path, body, field, value):
    answer = await client.post(path, json={"model": "m", field: value} | body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, HI | {"prompt": 5, "input": 5}),
        (COMPLETIONS, {"prompt": "hi", "messages": 5}),
        (EMBEDDINGS, {"input": "hi", "prompt": 5, "max_completion_tokens": "5"}),
    ],
)
async def test_another_endpoint_s_fields_are_the_engine_s_business(client, path, body):
    assert (await client.post(path, json={"model": "m"} | body)).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [(SCORE, {"text_1": "hi", "text_2": "a " * 4001}), (RERANK, {"query": "hi", "documents": ["hi", "a " * 4001]})],
)
async def test_a_text_to_score_has_to_fit_unless_it_is_to_be_cut(client, path, body):
    answer = await client.post(path, json={"model": "m"} | body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    answer = await client.post(path, json={"model": "m", "truncate_prompt_tokens": 500} | body)
    assert answer.status_code == 200
