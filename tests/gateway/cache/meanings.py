"""A gateway with a semantic cache, in front of an engine for chats and one for embeddings that a test writes."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from unittest.mock import patch

import httpx

from gateway.app import create_app
from gateway.redis_link import RedisLink
from gateway.settings import Settings
from tests.gateway.cache.conftest import connected, whole
from tests.gateway.doors import served
from tests.gateway.limits.links import answers
from tests.gateway.raw_server import raw_server, sized
from tests.polling import eventually


@dataclass
class Engines:
    """What they were asked.

    Attributes:
        meanings: the similarity of a text to all others that are named here; other texts are like none.
        embeddings: what the embeddings engine answers, when it is not an embedding.
    """

    meanings: Mapping[str, float]
    embeddings: bytes | None = None
    embedded: list[str] = field(default_factory=list)
    chats: int = 0

    def vector(self, text: str) -> Sequence[float]:
        """On a circle's arc for the texts that are named, so that 1 and 0.9 are 0.9 apart; elsewhere for others."""
        if text in self.meanings:
            near = self.meanings[text]
            return [near, (1 - near * near) ** 0.5, *[0.0] * 30]
        source = random.Random(text)
        return [0.0, 0.0, *(source.gauss(0, 1) for _ in range(30))]

    def answer(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        if b" /v1/embeddings " in head:
            self.embedded.append(json.loads(body)["input"])
            embedding = {"data": [{"index": 0, "embedding": self.vector(self.embedded[-1])}]}
            return self.embeddings or sized(json.dumps(embedding).encode())
        self.chats += 1
        return sized(json.dumps(whole(self.chats)).encode())


class Gateway:
    def __init__(self, client: httpx.AsyncClient, engines: Engines) -> None:
        self.client = client
        self.engines = engines

    async def ask(self, text: str, headers: dict | None = None, **fields) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0} | fields
        answer = await self.client.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    async def outcome(self, text: str, headers: dict | None = None, **fields) -> str:
        return (await self.ask(text, headers, **fields)).headers["x-llmgw-cache"]


async def elements(redis) -> list[bytes]:
    """Of all vector sets."""
    sets = await redis.keys("{llmgw}:semantic:*")
    return [element for key in sets for element in await redis.execute_command("VRANDMEMBER", key, 1000)]


async def known(redis, *questions: str) -> None:
    """An answer and its question are written once the client has its answer."""

    async def there() -> bool:
        return {question.encode() for question in questions} <= set(await elements(redis))

    await eventually(there)


@asynccontextmanager
async def gateway(
    redis_url: str, meanings: Mapping[str, float], thresholds: Mapping[str, float] | None = None, **settings
) -> AsyncIterator[Gateway]:
    """The bounds on Redis' and the embeddings' time are wide: on a busy machine either may be late."""
    engines = Engines(meanings)
    wide = {"gateway.redis_channel.TIMEOUT_S": 1.5, "gateway.completion.semantic.EMBEDDING_S": 10.0}

    async def answer(_reader, writer) -> None:
        writer.write(engines.answer(server.requests[-1]))
        await writer.drain()

    async with AsyncExitStack() as stack:
        for bound, seconds in wide.items():
            stack.enter_context(patch(bound, seconds))
        server = await stack.enter_async_context(raw_server(answer))
        upstreams = [{"model": name, "url": server.url} for name in ("m", "other")]
        upstreams.append({"model": "e", "url": server.url, "tasks": ["embeddings"]})
        semantic = {"cache_embeddings_model": "e", "cache_thresholds": thresholds or {"m": 0.8, "other": 0.8}}
        links: list[RedisLink] = []
        with patch("gateway.parts.RedisLink", lambda url: links.append(RedisLink(url)) or links[-1]):
            app = create_app(Settings.load(**{"redis_url": redis_url, "upstreams": upstreams} | semantic | settings))
        async with served(app, lifespan="on") as base, httpx.AsyncClient(base_url=base, timeout=30) as client:
            await eventually(lambda: connected(client))
            await eventually(lambda: answers(links[0]))
            yield Gateway(client, engines)


@asynccontextmanager
async def renaming(redis_url: str, command: bytes, unknown: bytes) -> AsyncIterator[str]:
    """The URL of the same Redis, for which one command is one that it does not know; both names are equally long."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data.replace(command, unknown))
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_unix_connection(redis_url.removeprefix("unix://"))
        await asyncio.gather(pass_on(reader, redis_writer), pass_on(redis_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
