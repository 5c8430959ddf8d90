"""Which requests are the same question."""

import json

import httpx

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.cache.conftest import connected
from tests.gateway.doors import served
from tests.gateway.raw_server import raw_server, sized
from tests.polling import eventually

QUESTION = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "hi"}]}


def _asking_for(number: int) -> bytes:
    schema = {"type": "object", "properties": {"wei": {"const": number}}}
    tools = [{"type": "function", "function": {"name": "send", "parameters": schema}}]
    return json.dumps(QUESTION | {"tools": tools}).encode()


async def test_integers_that_differ_beyond_64_bits_are_two_questions(cached, redis):
    outcomes = []
    for digit in (1, 2, 2):
        answer = await cached.client.post("/v1/chat/completions", content=_asking_for(10**20 + digit))
        outcomes.append(answer.headers["x-llmgw-cache"])
        await cached.stored(redis, min(len(outcomes), 2))
    assert outcomes == ["miss", "miss", "hit"]


async def test_another_model_behind_the_same_name_is_another_question(redis, redis_server):
    async def whoami(_reader, writer) -> None:
        name = json.loads(server.requests[-1].partition(b"\r\n\r\n")[2])["model"]
        choice = {"index": 0, "message": {"role": "assistant", "content": name}, "finish_reason": "stop"}
        writer.write(sized(json.dumps({"object": "chat.completion", "choices": [choice]}).encode()))
        await writer.drain()

    said = []
    async with raw_server(whoami) as server:
        for name in ("small", "large", "small"):
            upstreams = [{"model": "m", "url": server.url, "served_name": name}]
            app = create_app(Settings.load(redis_url=redis_server.url, upstreams=upstreams))
            async with served(app, lifespan="on") as base, httpx.AsyncClient(base_url=base) as client:
                await eventually(lambda client=client: connected(client))
                answer = await client.post("/v1/chat/completions", json=QUESTION)
            said.append((answer.json()["choices"][0]["message"]["content"], answer.headers["x-llmgw-cache"]))
    assert [text for text, _ in said] == ["small", "large", "small"]
