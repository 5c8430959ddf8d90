"""Who calls the path in this process, as chains and skills do: their tasks are not the path's to keep."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import orjson
import pytest

from gateway import parts
from gateway.completion.call import CompletionPath
from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.errors import UpstreamFailed
from gateway.settings import Settings
from tests.gateway.cache.conftest import whole
from tests.gateway.flight.conftest import STREAM, WHOLE, looked_up
from tests.polling import eventually

DONE = b"data: [DONE]\n\n"
KINDS = pytest.mark.parametrize("fields", [STREAM, WHOLE], ids=["stream", "whole"])


@pytest.fixture
async def path(engine, redis, redis_server) -> AsyncIterator[CompletionPath]:
    upstreams = [{"model": "m", "url": engine.url, "tells_usage": True}]
    own = parts.build(Settings.load(redis_url=redis_server.url, upstreams=upstreams))
    async with asyncio.TaskGroup() as background:
        running = [background.create_task(run()) for run in own.runs]
        await eventually(lambda: _listens(redis))
        yield own.path
        for task in running:
            task.cancel()
    await own.client.aclose()
    await own.redis.aclose()


async def _listens(redis) -> bool:
    links = [client for client in await redis.client_list() if client["name"] == "llmgw"]
    return len(links) == len(await redis.pubsub_channels("{llmgw}:mail:*")) == 1


class Reader:
    """Reads an answer in a task of its own, as events or whole."""

    def __init__(self, path: CompletionPath, fields: dict, caller: object = None) -> None:
        self.text = b""
        self.headers: dict[bytes, bytes] = {}
        self._call = Call.of(Endpoint.CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})
        self.task = asyncio.create_task(self._read(path, caller))

    async def _read(self, path: CompletionPath, caller: object) -> None:
        answer = await path.send(self._call, RequestContext("r"), caller)
        self.headers = dict(answer.headers)
        try:
            if answer.stream:
                async for frames in answer.frames():
                    self.text += frames
            else:
                self.text = await answer.body()
        finally:
            await answer.aclose()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def _begun(reader: Reader, redis, fields: dict, number: int) -> None:
    if fields is STREAM:
        await eventually(lambda: reader.text)
    else:
        await looked_up(redis, number)


def _is_told(reader: Reader, engine, fields: dict) -> bool:
    if fields is STREAM:
        return reader.text + DONE == engine.text(1)
    return orjson.loads(reader.text) == whole(1) | {"padding": ""}


@KINDS
async def test_what_a_cancelled_one_began_goes_on_for_who_is_left(path, engine, redis, fields):
    first = Reader(path, fields)
    await eventually(lambda: engine.asked)
    second = Reader(path, fields)
    await _begun(second, redis, fields, 2)
    await first.leave()
    engine.go.set()
    await second.task
    assert _is_told(second, engine, fields)
    assert (engine.asked, engine.aborted) == (1, 0)


@KINDS
async def test_who_began_it_gets_it(path, engine, redis, fields):
    first = Reader(path, fields)
    await eventually(lambda: engine.asked)
    second = Reader(path, fields)
    await _begun(second, redis, fields, 2)
    engine.go.set()
    await asyncio.gather(first.task, second.task)
    assert _is_told(first, engine, fields)
    assert _is_told(second, engine, fields)
    assert [reader.headers[b"x-llmgw-cache"] for reader in (first, second)] == [b"miss", b"shared"]
    assert engine.asked == 1


@KINDS
async def test_what_nobody_wants_is_aborted(path, engine, fields):
    first = Reader(path, fields)
    await eventually(lambda: engine.asked)
    assert engine.aborted == 0
    await first.leave()
    await eventually(lambda: engine.aborted == 1)
    engine.go.set()
    second = Reader(path, fields)
    await second.task
    assert (engine.asked, second.headers[b"x-llmgw-cache"]) == (2, b"miss")


@pytest.mark.parametrize("breaks", [False, True], ids=["complete", "broken"])
async def test_one_whose_task_is_kept_may_read_events_too(path, engine, redis, breaks):
    first = Reader(path, STREAM, SimpleNamespace(on_leave=None))
    await eventually(lambda: first.text)
    second = Reader(path, STREAM)
    await eventually(lambda: second.text)
    engine.cut = breaks
    engine.go.set()
    ends = await asyncio.gather(first.task, second.task, return_exceptions=True)
    if breaks:
        assert [type(end) for end in ends] == [UpstreamFailed] * 2
        await eventually(lambda: _unclaimed(redis))
    else:
        assert _is_told(first, engine, STREAM)
        assert _is_told(second, engine, STREAM)
    assert engine.asked == 1


async def _unclaimed(redis) -> bool:
    return await redis.keys("{llmgw}:cache:*") == []


@KINDS
async def test_a_kept_task_ends_when_the_last_one_has_left(path, engine, redis, fields):
    caller = SimpleNamespace(on_leave=None)
    first = Reader(path, fields, caller)
    await eventually(lambda: engine.asked)
    second = Reader(path, fields)
    await _begun(second, redis, fields, 2)
    caller.on_leave()
    assert not first.task.cancelling()
    await second.leave()
    await eventually(lambda: engine.aborted == 1)
    assert first.task.cancelling()
