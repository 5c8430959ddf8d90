"""A gateway with a real Redis, in front of an engine whose every answer is its own."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import patch

import httpx
import pytest

from gateway.app import create_app
from gateway.redis_link import RedisLink
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.limits.links import answers
from tests.gateway.raw_server import END, STREAM_HEAD, RawServer, Script, chunk, raw_server, sized
from tests.polling import eventually

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CALL = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "look", "arguments": ""}}
DELTAS = [
    {"role": "assistant", "content": ""},
    {"reasoning_content": "Let me "},
    {"reasoning_content": "think."},
    {"content": "Naïve "},
    {"content": "\u2028☃"},
    {"tool_calls": [CALL]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"at":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
]


def chunks(number: int, usage: bool) -> list[dict]:
    common = {"id": f"c-{number}", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = [common | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in DELTAS]
    end = common | {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    return [*said, end, *([common | {"choices": [], "usage": USAGE}] if usage else [])]


def whole(number: int) -> dict:
    message = {"role": "assistant", "content": "Naïve \u2028☃", "reasoning_content": "Let me think."}
    message["tool_calls"] = [
        {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
    ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    head = {"id": f"c-{number}", "object": "chat.completion", "created": 1, "model": "m"}
    return head | {"choices": [choice], "usage": USAGE}


def frames(events: list[dict]) -> list[bytes]:
    return [b"data: %b\n\n" % json.dumps(event, ensure_ascii=False).encode() for event in events]


def engine() -> tuple[Script, list[dict]]:
    """Answers each request in its own way, streamed or whole; the list fills with the bodies that came."""
    bodies: list[dict] = []

    async def script(_reader, writer) -> None:
        body = bodies[-1]
        if body.get("stream"):
            usage = (body.get("stream_options") or {}).get("include_usage", False)
            writer.write(STREAM_HEAD)
            for frame in frames(chunks(len(bodies), usage)):
                writer.write(chunk(frame))
                await writer.drain()
            writer.write(chunk(b"data: [DONE]\n\n") + END)
        else:
            writer.write(sized(json.dumps(whole(len(bodies))).encode()))
        await writer.drain()

    return script, bodies


class Gateway:
    """
    Attributes:
        asked: the requests that the engine got.
    """

    def __init__(self, client: httpx.AsyncClient, server: RawServer) -> None:
        self.client = client
        self._server = server

    @property
    def asked(self) -> int:
        return len(self._server.requests)

    async def post(self, path: str = "/v1/chat/completions", headers: dict | None = None, **fields) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
        return await self.client.post(path, json=body, headers=headers)

    async def stored(self, redis, count: int = 1) -> None:
        """An entry is written once the client has its answer."""

        async def there() -> bool:
            keys = await redis.keys("{llmgw}:cache:*")
            values = await redis.mget(keys) if keys else []
            # An answer that is being made has left a claim in its place.
            return sum(value is not None and value[:1] != b"\0" for value in values) == count

        await eventually(there)


@asynccontextmanager
async def gateway(redis_url: str, **settings) -> AsyncIterator[Gateway]:
    script, bodies = engine()

    async def answer(reader, writer) -> None:
        bodies.append(json.loads(server.requests[-1].partition(b"\r\n\r\n")[2]))
        await script(reader, writer)

    async with raw_server(answer) as server:
        upstreams = [{"model": "m", "url": server.url, "tasks": ["chat", "completions", "embeddings"]}]
        links: list[RedisLink] = []
        with patch("gateway.parts.RedisLink", lambda url: links.append(RedisLink(url)) or links[-1]):
            app = create_app(Settings.load(redis_url=redis_url, upstreams=upstreams, **settings))
        async with served(app, lifespan="on") as base, httpx.AsyncClient(base_url=base, timeout=30) as client:
            await eventually(lambda: connected(client))
            await eventually(lambda: answers(links[0]))
            yield Gateway(client, server)


async def connected(client: httpx.AsyncClient) -> bool:
    return (await client.get("/health/ready")).json()["redis"] == "up"


@pytest.fixture
async def cached(redis_server) -> AsyncIterator[Gateway]:
    async with gateway(redis_server.url) as running:
        yield running


@pytest.fixture(autouse=True)
def openai_door_only(no_chains_and_skills: None) -> None:
    """No test of this folder looks at another door."""
