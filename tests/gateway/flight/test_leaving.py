"""Clients that leave, engines that fail, a Redis and workers that die: nobody hangs, and nothing is made for nobody."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from gateway.limits.usage import read
from gateway.upstream.sse import payloads
from tests.gateway.cache.conftest import whole
from tests.gateway.flight.conftest import STREAM, WHOLE, WITH_USAGE, connected, gateways, looked_up, published
from tests.gateway.flight.processes import Process
from tests.gateway.raw_server import sized
from tests.polling import eventually

WHERE = pytest.mark.parametrize("where", [0, 1], ids=["the same worker", "another worker"])
# How often the only replica is asked before its failure is the answer.
TRIES = 3
BROKEN = sized(b'{"error":{"message":"broken"}}', "500 Internal Server Error")


@WHERE
async def test_a_stream_goes_on_for_who_is_left(pair, engine, where):
    first = pair[0].ask(**STREAM)
    await first.began.wait()
    second = pair[where].ask(**STREAM)
    await second.began.wait()
    await first.leave()
    await eventually(lambda: second.text)
    engine.go.set()
    assert await second.done() == engine.text(1)
    assert (engine.asked, engine.aborted) == (1, 0)


@WHERE
async def test_a_whole_answer_goes_on_for_who_is_left(pair, engine, redis, where):
    first = pair[0].ask(**WHOLE)
    await eventually(lambda: engine.asked)
    second = pair[where].ask(**WHOLE)
    await looked_up(redis, 2)
    if where:
        await eventually(lambda: _letters(redis))
    await first.leave()
    await pair[0].notices()
    engine.go.set()
    assert json.loads(await second.done()) == whole(1) | {"padding": ""}
    assert (engine.asked, engine.aborted) == (1, 0)


async def _letters(redis) -> bool:
    return await published(redis) >= 2


@pytest.mark.parametrize("fields", [STREAM, WHOLE], ids=["stream", "whole"])
async def test_what_nobody_wants_is_aborted(pair, engine, redis, caplog, fields):
    first = pair[0].ask(**fields)
    await eventually(lambda: engine.asked)
    await first.leave()
    await eventually(lambda: engine.aborted == 1)
    await eventually(lambda: _unclaimed(redis))
    second = pair[1].ask(**fields)
    await eventually(lambda: engine.asked == 2)
    engine.go.set()
    await second.done()
    assert second.cache == "miss"
    # As a wait before it is raised again would leave it behind, or lose it, in the wheel.
    assert sys.exc_info()[1] is None
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


@WHERE
async def test_what_nobody_wants_any_more_is_aborted(pair, engine, where):
    first = pair[0].ask(**STREAM)
    await first.began.wait()
    second = pair[where].ask(**STREAM)
    await second.began.wait()
    await first.leave()
    assert engine.aborted == 0
    await second.leave()
    await eventually(lambda: engine.aborted == 1)


async def _unclaimed(redis) -> bool:
    return await redis.keys("{llmgw}:cache:*") == []


@WHERE
async def test_when_it_does_not_begin_one_of_the_others_tries_again(pair, engine, redis, where):
    engine.refusals = [BROKEN] * TRIES
    first = pair[0].ask(**STREAM)
    await eventually(lambda: engine.asked)
    others = [pair[where].ask(**STREAM) for _ in range(5)]
    await looked_up(redis, 6)
    engine.go.set()
    assert (await first.done(), first.status)[1] == 502
    assert {await other.done() for other in others} == {engine.text(TRIES + 1)}
    assert engine.asked == TRIES + 1
    assert sorted(other.cache for other in others) in (["miss"] + ["shared"] * 4, ["hit"] * 4 + ["miss"])


@WHERE
async def test_when_it_fails_twice_everybody_is_told(pair, engine, redis, where):
    engine.refusals = [BROKEN] * 7
    askers = [pair[0].ask(**STREAM)]
    await eventually(lambda: engine.asked)
    askers += [pair[where].ask(**STREAM) for _ in range(5)]
    await looked_up(redis, 6)
    engine.go.set()
    for asker in askers:
        error = json.loads(await asker.done())["error"]
        assert (asker.status, error["code"]) == (502, "upstream_failed")


@WHERE
async def test_a_stream_that_breaks_off_breaks_off_for_all(pair, engine, where):
    engine.cut = True
    askers = [pair[0].ask(**STREAM)]
    await askers[0].began.wait()
    askers += [pair[where].ask(**STREAM), pair[where].ask(**STREAM)]
    await asyncio.gather(*(asker.began.wait() for asker in askers))
    engine.go.set()
    texts = {await asker.done() for asker in askers}
    assert engine.asked == 1
    (text,) = texts
    assert b'"code":"upstream_failed"' in text
    assert b"[DONE]" not in text


async def test_redis_that_dies_in_mid_flight_leaves_nobody_waiting(pair, engine, redis_server):
    askers = [pair[0].ask(**STREAM)]
    await askers[0].began.wait()
    askers += [pair[0].ask(**STREAM), pair[1].ask(**STREAM), pair[1].ask(**STREAM)]
    await eventually(lambda: len({asker.text for asker in askers} - {b""}) == 1 and all(a.text for a in askers))
    redis_server.kill()
    await eventually(lambda: engine.asked == 2)  # the other worker's one goes on by itself
    engine.go.set()
    assert [_events(await asker.done()) for asker in askers] == [_events(engine.text(1))] * 4
    assert engine.asked == 2
    assert await pair[1].counted() == {"hit": 0, "semantic": 0, "shared": 2, "miss": 0}


async def test_without_redis_the_requests_of_a_worker_still_share(pair, engine, redis_server):
    redis_server.kill()
    await eventually(lambda: _away(pair[0]))
    askers = [pair[0].ask(**STREAM) for _ in range(10)]
    await asyncio.gather(*(asker.began.wait() for asker in askers))
    engine.go.set()
    assert {await asker.done() for asker in askers} == {engine.text(1)}
    assert engine.asked == 1


async def _away(gateway) -> bool:
    return (await gateway.client.get("/health/ready")).json()["redis"] != "up"


async def test_who_began_pays_also_when_gone_and_the_others_have_it_from_the_cache(engine, redis, redis_server):
    async with gateways(engine, redis, redis_server.url) as pair:
        first = pair[0].ask(**WITH_USAGE)
        await first.began.wait()
        others = [pair[0].ask(**WITH_USAGE), pair[1].ask(**WITH_USAGE)]
        await asyncio.gather(*(other.began.wait() for other in others))
        await first.leave()
        engine.go.set()
        assert {await other.done() for other in others} == {engine.text(1, usage=True)}
    today = datetime.now(UTC).date()
    (row,) = await read(redis, today - timedelta(days=1), today)
    assert (row.requests, row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (3, 3, 4, 14)


@pytest.fixture
async def processes(engine, redis, redis_server, tmp_path):
    config = tmp_path / "cluster.yaml"
    upstreams = [{"model": "m", "url": engine.url}]
    config.write_text(yaml.safe_dump({"gateway": {"upstreams": upstreams, "redis_url": redis_server.url}}))
    running = [Process(config), Process(config)]
    try:
        for process in running:
            await eventually(process.ready, within=60)
        await eventually(lambda: connected(redis, 2))
        yield running
    finally:
        for process in running:
            await process.stop()


async def test_when_the_worker_that_makes_it_is_killed_the_others_finish(processes, engine):
    first = processes[0].ask(**STREAM)
    await first.began.wait()
    others = [processes[1].ask(**STREAM)]
    await eventually(lambda: others[0].text)
    others += [processes[1].ask(**STREAM) for _ in range(20)]
    await eventually(lambda: all(other.text for other in others))
    processes[0].kill_worker()
    await eventually(lambda: engine.asked == 2)
    engine.go.set()
    assert [_events(await other.done()) for other in others] == [_events(engine.text(1))] * 21
    assert engine.asked == 2
    await first.leave()


async def test_when_it_is_killed_before_it_begins_another_takes_over(processes, engine, redis):
    first = processes[0].ask(**WHOLE)
    await eventually(lambda: engine.asked)
    others = [processes[1].ask(**WHOLE)]
    await eventually(lambda: _letters(redis))
    others += [processes[1].ask(**WHOLE) for _ in range(20)]
    processes[0].kill_worker()
    await eventually(lambda: engine.asked == 2)
    engine.go.set()
    assert [json.loads(await other.done()) for other in others] == [whole(2) | {"padding": ""}] * 21
    assert engine.asked == 2
    await first.leave()


def _events(text: bytes) -> list[str]:
    return [payload.decode() if payload == b"[DONE]" else json.loads(payload) for payload in payloads(text)]
