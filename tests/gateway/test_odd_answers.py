"""An engine whose answer is JSON, but not what a chain or a skill can read."""

import json
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.doors import served, sse
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, chunk, event, raw_server, sized
from tests.polling import eventually

COMMON = {"id": "c", "created": 1, "model": "m"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{}]}
STOP = {"index": 0, "delta": {}, "finish_reason": "stop"}


async def asked(answer: bytes, path: str, body: Any) -> httpx.Response:
    async with raw_server(answer) as engine:
        settings = Settings.load(redis_url=None, upstreams=[{"model": "m", "url": engine.url, "max_model_len": 4_096}])
        async with served(create_app(settings), lifespan="on") as base, httpx.AsyncClient(base_url=base) as client:
            await eventually(lambda: _ready(client))
            return await client.post(path, json=body)


async def _ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    "choices",
    [[], None, [{}], [5], [{"index": 0, "message": CALL, "finish_reason": "tool_calls"}]],
    ids=["none", "null", "empty", "a number", "a call of nothing"],
)
@pytest.mark.parametrize(
    ("path", "body"), [("/chains/chat/invoke", {"input": {"input": "x"}}), ("/skills/text/summarize", {"text": "x"})]
)
async def test_it_is_the_engines_failure_and_not_a_defect(path: str, body: Any, choices: Any, caplog) -> None:
    answer = await asked(sized(json.dumps(COMMON | {"choices": choices}).encode()), path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")
    assert "failed" not in caplog.text


async def test_in_a_stream_it_is_told_as_the_engines_too() -> None:
    said = {"index": 0, "delta": {"content": "Once"}, "finish_reason": None}
    events = [{"choices": [said]}, {"choices": [{"index": 0, "delta": {"tool_calls": [{}]}}]}, {"choices": [STOP]}]
    frames = b"".join(chunk(event(json.dumps(COMMON | some).encode())) for some in events)
    answer = await asked(STREAM_HEAD + frames + chunk(DONE) + END, "/chains/chat/stream", {"input": {"input": "x"}})
    assert answer.status_code == 200
    name, data = sse(answer.text)[-1]
    assert (name, json.loads(data)["status_code"]) == ("error", 502)
