"""Gateways with keys of two tenants, in front of an engine that says how often it was asked."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from unittest.mock import patch

import httpx
import pytest
from langserve import RemoteRunnable

from gateway import redis_channel, redis_link
from gateway.app import create_app
from gateway.redis_link import RedisLink
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.limits.links import answers
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, RawServer, chunk, event, raw_server, sized
from tests.polling import eventually
from tests.remote import remote_runnable

KEYS = {"ann": "a", "alex": "a", "bob": "b"}


class Engine:
    """
    Attributes:
        server: what it got.
        fails: it answers with its own failure.
        hold: an answer stops in its middle.
    """

    def __init__(self) -> None:
        self.server: RawServer
        self.fails = self.hold = False

    @property
    def bodies(self) -> list[dict]:
        return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.server.requests]

    @property
    def asked(self) -> list[str]:
        """The texts of the last prompt, without the system's."""
        return [message["content"] for message in self.bodies[-1]["messages"][1:]]

    async def answer(self, _reader, writer) -> None:
        text, common = f"answer {len(self.server.requests)}", {"id": "c", "created": 1, "model": "m"}
        if self.fails:
            writer.write(sized(b"{}", "500 Oops"))
        elif self.bodies[-1].get("stream"):
            deltas = [{"role": "assistant", "content": ""}, *({"content": part} for part in text.partition(" "))]
            events = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
            writer.write(STREAM_HEAD)
            for choice in events:
                writer.write(chunk(event(json.dumps(common | {"choices": [choice]}).encode())))
            if self.hold:
                return
            end = common | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            writer.write(chunk(event(json.dumps(end).encode())) + chunk(DONE) + END)
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            whole = common | {"object": "chat.completion", "choices": [choice], "usage": usage}
            writer.write(sized(json.dumps(whole).encode()))
        await writer.drain()


class Gateway:
    """
    Attributes:
        held: an answer that goes on, where a test has begun one.
    """

    def __init__(self, base: str, engine: Engine) -> None:
        self.base = base
        self.engine = engine
        self.held: httpx.Response | None = None

    def chat(self, key: str = "ann") -> RemoteRunnable:
        return remote_runnable(f"{self.base}/chains/chat", headers={"x-api-key": key})

    async def say(self, text: str, session: str, key: str = "ann") -> str:
        return await self.chat(key).ainvoke({"input": text}, {"configurable": {"session_id": session}})

    async def http(self, method: str, path: str, key: str = "ann", **options) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.base, headers={"x-api-key": key}, timeout=30) as client:
            return await client.request(method, path, **options)

    async def sessions(self, key: str = "ann") -> list[str]:
        return [entry["id"] for entry in (await self.http("GET", "/sessions", key)).json()["sessions"]]

    async def said(self, session: str, key: str = "ann") -> list[str]:
        answer = await self.http("GET", f"/sessions/{session}", key)
        return [message["content"] for message in answer.json()["messages"]]


def key(secret: str, tenant: str, **fields: object) -> dict:
    """Who presents `secret` is `tenant`'s."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return {"name": secret, "tenant": tenant, "hash": f"sha256:{digest}"} | fields


@asynccontextmanager
async def gateway(
    redis_url: str | None, engine: Engine, max_model_len: int = 4096, **settings
) -> AsyncIterator[Gateway]:
    keys = settings.pop("keys", None) or [key(name, tenant) for name, tenant in KEYS.items()]
    tasks = ["chat", "completions", "embeddings", "score"]
    upstreams = [{"model": "m", "url": engine.server.url, "max_model_len": max_model_len, "tasks": tasks}]
    links: list[RedisLink] = []
    with patch("gateway.parts.RedisLink", lambda url: links.append(RedisLink(url)) or links[-1]):
        app = create_app(Settings.load(redis_url=redis_url, keys=keys, upstreams=upstreams, **settings))
    async with served(app, lifespan="on") as base:
        for link in links:
            await eventually(lambda link=link: answers(link))
        yield Gateway(base, engine)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    async with raw_server(engine.answer) as engine.server:
        yield engine


@pytest.fixture
async def two(patient, redis_server, engine) -> AsyncIterator[Sequence[Gateway]]:
    """Two gateways that share a Redis."""
    async with gateway(redis_server.url, engine) as one, gateway(redis_server.url, engine) as other:
        yield one, other


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No busy machine shall take a Redis that is there for one that is late."""
    monkeypatch.setattr(redis_channel, "TIMEOUT_S", 10.0)
    monkeypatch.setattr(redis_channel, "STALLED_S", 20.0)
    monkeypatch.setattr(redis_link, "CONNECT_S", 10.0)
    monkeypatch.setattr(redis_link, "RECONNECT_S", 0.05)
