"""Two gateways with one Redis, in front of an engine that goes on when it is told to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.cache.conftest import chunks, frames, whole
from tests.gateway.doors import served
from tests.gateway.raw_server import END, STREAM_HEAD, RawServer, chunk, raw_server, sized
from tests.polling import eventually

BEGINNING = 3  # events
STREAM = {"stream": True, "temperature": 0}
WITH_USAGE = STREAM | {"stream_options": {"include_usage": True}}
BULK = b'data: {"choices":[],"bulk":"' + b"x" * 100_000 + b'"}\n\n'
WHOLE = {"temperature": 0}


class Engine:
    """Tells the beginning of each answer, and the rest once it may.

    Attributes:
        go: whether it may.
        cut: it breaks off where it would go on.
        refusals: what the next answers are in place of answers, once they may.
        padding: makes the first event longer.
        bulk: large events in the middle of a stream; `sent` are those that went out.
        aborted: the answers that nobody waited for.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.cut = False
        self.refusals: list[bytes] = []
        self.padding = ""
        self.bulk = 0
        self.sent = 0
        self.asked = 0
        self.aborted = 0
        self.server: RawServer

    @property
    def url(self) -> str:
        return self.server.url

    async def answer(self, reader, writer) -> None:
        if self.server.requests[-1].startswith(b"GET /health "):  # one whose answers fail is looked at now and then
            writer.write(sized(b"{}"))
            await writer.drain()
            return
        self.asked += 1
        number, body = self.asked, json.loads(self.server.requests[-1].partition(b"\r\n\r\n")[2])
        if self.refusals:
            await self._may_go_on(reader)
            writer.write(self.refusals.pop(0))
        elif body.get("stream"):
            await self._stream(reader, writer, number, bool(body.get("stream_options")))
        else:
            await self._may_go_on(reader)
            writer.write(sized(json.dumps(whole(number) | {"padding": self.padding}).encode()))
        await writer.drain()

    async def _stream(self, reader, writer, number: int, usage: bool) -> None:
        events = chunks(number, usage)
        events[0]["padding"] = self.padding
        parts = [chunk(frame) for frame in frames(events)]
        writer.write(STREAM_HEAD + b"".join(parts[:BEGINNING]))
        await self._may_go_on(reader)
        if self.cut:
            raise ConnectionError
        for _ in range(self.bulk):
            writer.write(chunk(BULK))
            await writer.drain()
            self.sent += 1
        for part in parts[BEGINNING:]:
            writer.write(part)
            await writer.drain()
        writer.write(chunk(b"data: [DONE]\n\n") + END)

    async def _may_go_on(self, reader) -> None:
        gone, may = asyncio.ensure_future(reader.read(1)), asyncio.ensure_future(self.go.wait())
        await asyncio.wait([gone, may], return_when=asyncio.FIRST_COMPLETED)
        may.cancel()
        if gone.done():
            self.aborted += 1
            raise ConnectionError
        gone.cancel()
        await asyncio.gather(gone, may, return_exceptions=True)

    def text(self, number: int, usage: bool = False) -> bytes:
        """The answer to the request of that number, as a stream."""
        events = chunks(number, usage)
        events[0]["padding"] = self.padding
        told = frames(events)
        return b"".join([*told[:BEGINNING], *[BULK] * self.bulk, *told[BEGINNING:]]) + b"data: [DONE]\n\n"


@asynccontextmanager
async def running_engine() -> AsyncIterator[Engine]:
    engine = Engine()
    async with raw_server(engine.answer) as engine.server:
        yield engine


class Asker:
    """One request whose answer is read in the background.

    Attributes:
        began: the answer's head is there.
        text: what has come of it.
    """

    def __init__(self, client: httpx.AsyncClient, fields: dict, headers: dict | None) -> None:
        self.text = b""
        self.status = 0
        self.began = asyncio.Event()
        self.headers = httpx.Headers()
        self._task = asyncio.create_task(self._ask(client, fields, headers))

    async def _ask(self, client: httpx.AsyncClient, fields: dict, headers: dict | None) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            self.status, self.headers = answer.status_code, answer.headers
            self.began.set()
            async for data in answer.aiter_bytes():
                self.text += data

    @property
    def cache(self) -> str:
        return self.headers.get("x-llmgw-cache", "")

    async def done(self) -> bytes:
        async with asyncio.timeout(30):
            await self._task
        return self.text

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Gateway:
    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url = url
        self.client = client

    def ask(self, headers: dict | None = None, **fields) -> Asker:
        return Asker(self.client, fields, headers)

    async def counted(self) -> dict[str, int]:
        """How many answers came from where; counted once the answer begins."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        told = [line.split('"') for line in lines if line.startswith("llmgw_cache_answers_total{")]
        return {outcome: int(float(count.split()[-1])) for _, outcome, count in told}

    async def notices(self) -> None:
        """Returns once it has seen what happened before on its other connections, such as that a client is gone."""
        await self.client.get("/health/live")


@asynccontextmanager
async def gateways(engine: Engine, redis, redis_url: str, count: int = 2, **settings) -> AsyncIterator[list[Gateway]]:
    """Gateways that know each other."""
    upstreams = [{"model": "m", "url": engine.url, "tells_usage": True}]
    running = []
    async with AsyncExitStack() as stack:
        for _ in range(count):
            app = create_app(Settings.load(redis_url=redis_url, upstreams=upstreams, **settings))
            base = await stack.enter_async_context(served(app, lifespan="on"))
            limits = httpx.Limits(max_connections=None)
            client = httpx.AsyncClient(base_url=base, timeout=30, limits=limits)
            running.append(Gateway(base, await stack.enter_async_context(client)))
        await eventually(lambda: connected(redis, count))
        yield running


async def looked_up(redis, count: int) -> None:
    """Returns once so many requests have looked for their answer in the cache."""

    async def there() -> bool:
        return (await redis.info("commandstats")).get("cmdstat_set", {"calls": 0})["calls"] >= count

    await eventually(there)


async def published(redis) -> int:
    """How many letters have gone from worker to worker."""
    return (await redis.info("commandstats")).get("cmdstat_publish", {"calls": 0})["calls"]


async def connected(redis, count: int) -> bool:
    """Whether so many workers can look answers up, and can be written to."""
    links = [client for client in await redis.client_list() if client["name"] == "llmgw"]
    return len(links) == len(await redis.pubsub_channels("{llmgw}:mail:*")) == count


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """Redis may take longer than a request waits for it: here all clients and gateways are on one event loop."""
    monkeypatch.setattr("gateway.redis_channel.TIMEOUT_S", 1.0)
    monkeypatch.setattr("gateway.completion.remote_flight.FIRST_WORD_S", 5.0)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine() as engine:
        yield engine


@pytest.fixture
async def pair(engine, redis, redis_server) -> AsyncIterator[list[Gateway]]:
    async with gateways(engine, redis, redis_server.url) as running:
        yield running


@pytest.fixture(autouse=True)
def openai_door_only(no_chains_and_skills: None) -> None:
    """No test of this folder looks at another door."""
