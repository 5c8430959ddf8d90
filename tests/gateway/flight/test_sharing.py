"""Who shares an answer that is being made, and what they get."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.settings import Key
from gateway.upstream.sse import payloads
from tests.gateway.cache.conftest import chunks, frames, whole
from tests.gateway.flight.conftest import STREAM, WHOLE, WITH_USAGE, Asker, gateways, looked_up, published
from tests.gateway.raw_server import END, STREAM_HEAD, RawServer, chunk, raw_server
from tests.polling import eventually

WHERE = pytest.mark.parametrize("where", [0, 1], ids=["the same worker", "another worker"])


async def test_a_hundred_identical_streams_are_one_generation(pair, engine):
    askers = [pair[number % 2].ask(**STREAM) for number in range(100)]
    await asyncio.gather(*(asker.began.wait() for asker in askers))
    engine.go.set()
    answers = [await asker.done() for asker in askers]
    assert set(answers) == {engine.text(1)}
    assert engine.asked == 1
    assert sorted(asker.cache for asker in askers) == ["miss"] + ["shared"] * 99
    assert await pair[0].ask(**STREAM).done() == engine.text(1)


async def test_a_hundred_identical_whole_requests_are_one_generation(pair, engine, redis):
    askers = [pair[number % 2].ask(**WHOLE) for number in range(100)]
    await looked_up(redis, 100)
    engine.go.set()
    answers = [json.loads(await asker.done()) for asker in askers]
    assert answers == [whole(1) | {"padding": ""}] * 100
    assert engine.asked == 1


@WHERE
async def test_who_comes_late_gets_the_beginning_at_once_and_the_rest_as_it_comes(pair, engine, where):
    first = pair[0].ask(**STREAM)
    await first.began.wait()
    late = pair[where].ask(**STREAM)
    await eventually(lambda: first.text == late.text != b"")
    assert engine.text(1).startswith(late.text)
    engine.go.set()
    assert await first.done() == await late.done() == engine.text(1)
    assert (engine.asked, first.cache, late.cache) == (1, "miss", "shared")


@WHERE
@pytest.mark.parametrize(
    ("first", "second"), [(WITH_USAGE, STREAM), (WITH_USAGE, WHOLE), (WHOLE, WITH_USAGE)], ids=["usage", "sw", "ws"]
)
async def test_streams_and_wholes_share(pair, engine, redis, where, first, second):
    one = pair[0].ask(**first)
    await eventually(lambda: engine.asked)
    other = pair[where].ask(**second)
    await looked_up(redis, 2)
    engine.go.set()
    await one.done()
    text = await other.done()
    assert (engine.asked, other.status, other.cache) == (1, 200, "shared")
    if second is WHOLE:
        assert json.loads(text)["choices"] == whole(1)["choices"]
    elif first is WITH_USAGE:
        events = [json.loads(payload) for payload in payloads(text) if payload != b"[DONE]"]
        assert [event["choices"] for event in events] == [event["choices"] for event in chunks(1, usage=False)]
        assert not any(event.get("usage") for event in events)
    else:
        assert text.endswith(b"data: [DONE]\n\n")
        assert b'"total_tokens":7' in text


@WHERE
async def test_who_wants_the_usage_does_not_share_a_stream_that_does_not_tell_it(pair, engine, where):
    askers = [pair[0].ask(**STREAM)]
    await askers[0].began.wait()
    askers.append(pair[where].ask(**WITH_USAGE))
    await askers[1].began.wait()
    engine.go.set()
    assert await askers[1].done() == engine.text(2, usage=True)
    assert engine.asked == 2


@WHERE
@pytest.mark.parametrize(
    ("fields", "control"),
    [
        ({"stream": True}, None),
        ({"stream": True, "temperature": 0.7}, None),
        (STREAM, "no-cache"),
        (STREAM, "no-store"),
        (STREAM | {"max_tokens": 9}, None),
    ],
)
async def test_what_is_not_the_same_is_not_shared(pair, engine, where, fields, control):
    askers = [pair[0].ask(**STREAM)]
    await askers[0].began.wait()
    headers = {"cache-control": control} if control else None
    askers += [pair[where].ask(headers, **fields), pair[where].ask(headers, **fields)]
    await asyncio.gather(*(asker.began.wait() for asker in askers))
    alike = 2 if "max_tokens" in fields else 3
    engine.go.set()
    for asker in askers:
        await asker.done()
    assert engine.asked == alike
    assert [asker.cache for asker in askers].count("shared") == (1 if alike == 2 else 0)


@WHERE
@pytest.mark.parametrize("hurried", [0, 1], ids=["the first hurries", "the second hurries"])
async def test_a_deadline_is_nobody_elses(pair, engine, where, hurried):
    """Who has one is given up at it, and who has none is not."""
    askers = []
    for number, gateway in enumerate((pair[0], pair[where])):
        askers.append(gateway.ask({"x-llmgw-timeout-ms": "1000"} if number == hurried else None, **STREAM))
        await askers[-1].began.wait()
    assert b"deadline_exceeded" in await askers[hurried].done()
    engine.go.set()
    assert await askers[1 - hurried].done() == engine.text(2 - hurried)
    assert engine.asked == 2


@WHERE
async def test_tenants_do_not_share(engine, redis, redis_server, where):
    keys = tuple(
        Key(name=name, tenant=name[0], hash=f"sha256:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}")
        for name in ("a-1", "a-2", "b-1")
    )
    async with gateways(engine, redis, redis_server.url, keys=keys) as pair:
        askers = {}
        for name, gateway in (("a-1", pair[0]), ("a-2", pair[where]), ("b-1", pair[where])):
            askers[name] = gateway.ask({"authorization": f"Bearer sk-{name}"}, **STREAM)
            await askers[name].began.wait()
        engine.go.set()
        texts = {name: await asker.done() for name, asker in askers.items()}
    assert texts == {"a-1": engine.text(1), "a-2": engine.text(1), "b-1": engine.text(2)}
    assert [asker.cache for asker in askers.values()] == ["miss", "shared", "miss"]


async def test_a_long_answer_is_shared_by_who_came_in_time(engine, redis, redis_server):
    engine.padding = "x" * 2000
    async with gateways(engine, redis, redis_server.url, cache_max_answer_bytes=2600) as pair:
        early = [pair[0].ask(**STREAM), pair[0].ask(**STREAM), pair[1].ask(**STREAM)]
        await asyncio.gather(*(asker.began.wait() for asker in early))
        await eventually(lambda: len({asker.text for asker in early}) == 1)
        engine.go.set()
        assert [await asker.done() for asker in early] == [engine.text(1)] * 3
        assert engine.asked == 1
        await eventually(lambda: _unclaimed(redis))


async def _unclaimed(redis) -> bool:
    return await redis.keys("{llmgw}:cache:*") == []


class Stepping:
    """Tells the next event of an answer when it is told to."""

    def __init__(self) -> None:
        self.server: RawServer
        self._steps: list[asyncio.Queue[bytes]] = [asyncio.Queue(), asyncio.Queue()]

    @property
    def url(self) -> str:
        return self.server.url

    def events(self, number: int) -> list[bytes]:
        return frames([event | {"padding": "x" * 1000} for event in chunks(number, usage=False)])

    def tell(self, number: int, events: list[bytes], *, last: bool = False) -> None:
        for event in (*events, b"") if last else events:
            self._steps[number - 1].put_nowait(event)

    async def answer(self, reader, writer) -> None:
        steps = self._steps[len(self.server.requests) - 1]
        writer.write(STREAM_HEAD)
        while event := await steps.get():
            writer.write(chunk(event))
            await writer.drain()
        writer.write(chunk(b"data: [DONE]\n\n") + END)
        await writer.drain()


@asynccontextmanager
async def stepping() -> AsyncIterator[Stepping]:
    engine = Stepping()
    async with raw_server(engine.answer) as engine.server:
        try:
            yield engine
        finally:
            for number in (1, 2):
                engine.tell(number, [], last=True)


async def test_who_follows_an_answer_that_is_too_long_to_join_hears_nothing_of_the_next(
    redis, redis_server, monkeypatch
):
    monkeypatch.setattr("gateway.completion.flight_watch.TICK_S", 0.05)
    async with (
        stepping() as engine,
        gateways(engine, redis, redis_server.url, cache_max_answer_bytes=2500) as pair,
    ):
        one, two = engine.events(1), engine.events(2)
        engine.tell(1, one[:1])
        first = pair[0].ask(**STREAM)
        await first.began.wait()
        follower = pair[1].ask(**STREAM)
        await eventually(lambda: first.text == follower.text == one[0])
        await _step_by_step(engine, one[1:4], first, follower)
        engine.tell(2, two[:-1])
        second = pair[0].ask(**STREAM)
        await eventually(lambda: second.text == b"".join(two[:-1]))
        letters = await published(redis)
        await eventually(lambda: _more(redis, letters + 10))  # the follower has said that it is there, and got its news
        await _step_by_step(engine, one[4:], first, follower)
        engine.tell(1, [], last=True)
        assert await first.done() == await follower.done() == b"".join(one) + b"data: [DONE]\n\n"
        engine.tell(2, two[-1:], last=True)
        assert await second.done() == b"".join(two) + b"data: [DONE]\n\n"
    assert (follower.cache, second.cache) == ("shared", "miss")


async def _step_by_step(engine: Stepping, events: list[bytes], first: Asker, follower: Asker) -> None:
    """No reader may be further behind than what is kept."""
    for event in events:
        told = first.text + event
        engine.tell(1, [event])
        await eventually(lambda told=told: first.text == follower.text == told)


async def _more(redis, letters: int) -> bool:
    return await published(redis) >= letters


@WHERE
async def test_outcomes_are_counted(pair, engine, where):
    first = pair[0].ask(**STREAM)
    await first.began.wait()
    second = pair[where].ask(**STREAM)
    await second.began.wait()
    engine.go.set()
    await asyncio.gather(first.done(), second.done())
    assert (await pair[where].counted())["shared"] == 1
