"""What stands in Redis for an answer that is being made, and slow readers of one."""

import asyncio
import json

import pytest

from gateway.cache.claim import Claim
from gateway.cache.entry import VERSION, BadEntry, Entry
from gateway.cache.exact import ExactCache
from gateway.cache.mail import Mail
from gateway.cache.policy import FULL
from gateway.completion.anew import rest
from gateway.completion.cached import CachedAnswer
from gateway.completion.caching import Caching, Lookup
from gateway.completion.endpoint import Endpoint
from gateway.completion.flight import Flight, FlightLost
from gateway.completion.metering import Bill
from gateway.completion.request import Call
from gateway.completion.shared import Asked, SharedAnswer
from gateway.errors import StreamInterrupted
from gateway.metrics import Metrics
from gateway.upstream.sse import payloads
from tests.gateway.cache.conftest import chunks, frames, whole
from tests.gateway.doors import raw_post
from tests.gateway.flight.conftest import STREAM, gateways
from tests.polling import eventually


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("usage", [True, False])
def test_a_claim_says_who_made_it_and_of_what_kind_the_answer_is(stream, usage):
    claim = Claim.of("w", 3, stream=stream, usage=usage)
    for told in (claim, Claim.parse(claim.data)):
        assert (told.data, told.worker, told.stream, told.usage) == (claim.data, "w", stream, usage)
    assert claim.data != Claim.of("w", 4, stream=stream, usage=usage).data


@pytest.mark.parametrize("data", [b"\0", b"\0w 1 stream", b"\0w 1 stream usage more", b"\0w 1 usage stream", b"\0\xff"])
def test_anything_else_is_no_claim(data):
    with pytest.raises(BadEntry):
        Claim.parse(data)


async def _key(gateway, engine, redis) -> str:
    engine.go.set()
    await gateway.ask(**STREAM).done()
    (key,) = await redis.keys("{llmgw}:cache:*")
    return key


@pytest.mark.parametrize(
    "left", [Claim.of("dead", 0, stream=True, usage=False).data, b"\0no claim"], ids=["of a dead worker", "garbage"]
)
async def test_a_claim_that_nobody_stands_behind_is_taken_over(pair, engine, redis, left):
    key = await _key(pair[0], engine, redis)
    await redis.set(key, left)
    asker = pair[0].ask(**STREAM)
    assert await asker.done() == engine.text(2)
    assert asker.cache == "miss"
    await eventually(lambda: _is_an_answer(redis, key))
    assert await pair[1].ask(**STREAM).done() == engine.text(2)


async def _is_an_answer(redis, key: str) -> bool:
    return (await redis.get(key) or b"\0")[:1] == bytes((VERSION,))


async def test_a_claim_lasts_as_long_as_the_answer_takes(pair, engine, redis, monkeypatch):
    monkeypatch.setattr("gateway.cache.exact.LEASE_MS", 1500)
    first = pair[0].ask(**STREAM)
    await first.began.wait()
    (key,) = await redis.keys("{llmgw}:cache:*")
    before = await redis.pexpiretime(key)
    await eventually(lambda: _later(redis, key, before + 1500))
    second = pair[1].ask(**STREAM)
    await second.began.wait()
    engine.go.set()
    assert await first.done() == await second.done() == engine.text(1)


async def _later(redis, key: str, than: int) -> bool:
    return await redis.pexpiretime(key) > than


async def test_an_answer_that_will_not_do_is_not_prolonged_by_the_one_that_is_made(pair, engine, redis, monkeypatch):
    key = await _key(pair[0], engine, redis)
    monkeypatch.setattr("gateway.completion.flight_watch.TICK_S", 0.05)
    monkeypatch.setattr("gateway.cache.exact.LEASE_MS", 60_000)
    engine.go.clear()
    await redis.pexpire(key, 30_000)
    until = await redis.pexpiretime(key)
    too_old = pair[0].ask({"cache-control": "max-age=0"}, **STREAM | {"stream_options": {"include_usage": True}})
    another = pair[0].ask(**STREAM, max_tokens=9)
    await asyncio.gather(too_old.began.wait(), another.began.wait())
    (claimed,) = set(await redis.keys("{llmgw}:cache:*")) - {key}
    renewed = await redis.pexpiretime(claimed)
    await eventually(lambda: _later(redis, claimed, renewed + 1000))
    assert await redis.pexpiretime(key) == until
    engine.go.set()
    await asyncio.gather(too_old.done(), another.done())


async def test_a_redis_that_is_full_still_answers_from_the_cache(pair, engine, redis):
    await _key(pair[0], engine, redis)
    await redis.config_set("maxmemory", 1)
    known = pair[1].ask(**STREAM)
    assert (await known.done(), known.cache) == (engine.text(1), "hit")
    engine.go.clear()
    askers = [pair[1].ask(**STREAM, max_tokens=9), pair[1].ask(**STREAM, max_tokens=9)]
    for asker in askers:
        await asker.began.wait()
    engine.go.set()
    assert {await asker.done() for asker in askers} == {engine.text(2)}


@pytest.mark.parametrize("where", [(0, 1), (1,)], ids=["both workers", "another worker"])
async def test_who_reads_slowly_does_not_hold_up_the_others(engine, redis, redis_server, where):
    engine.bulk = 100
    async with gateways(engine, redis, redis_server.url, cache_max_answer_bytes=1 << 26) as pair:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **STREAM}
        engine.go.set()
        reader, writer = await raw_post(pair[0].url, "/v1/chat/completions", json.dumps(body).encode())
        seen = [-1]
        await eventually(lambda: _stalled(engine, seen))
        others = [pair[number].ask(**STREAM) for number in where]
        for other in others:
            assert await other.done() == engine.text(1)
            assert other.cache == "shared"
        assert await _in_the_end(reader) == engine.text(1)
        writer.close()
    assert engine.asked == 1


class _Slow:
    """A client that has not read yet."""

    def __init__(self) -> None:
        self.full = asyncio.get_running_loop().create_future()
        self.got = b""

    def write(self, data: bytes) -> bool:
        self.got += data
        return self.full is None

    def read(self) -> None:
        self.full.set_result(None)
        self.full = None


@pytest.mark.parametrize(("most", "told"), [(1000, b"123"), (5, b"1")], ids=["all is there", "some was dropped"])
async def test_who_does_not_keep_up_with_the_others_reads_on_alone(most, told):
    flight, slow = Flight("key", None, most, stream=True, usage=False), _Slow()
    flight.join()
    flight.join()
    flight.lead(slow)
    for digit in (b"1", b"2", b"3"):
        assert flight.write(digit * 3)
    flight.end()
    slow.read()
    if most == 5:
        with pytest.raises(StreamInterrupted, match="too slowly"):
            await flight.apart
    else:
        await flight.apart
    assert slow.got == b"".join(bytes([digit]) * 3 for digit in told)


async def _in_the_end(reader: asyncio.StreamReader) -> bytes:
    """The body of a response in chunks."""
    await reader.readuntil(b"\r\n\r\n")
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return body


def _stalled(engine, seen: list[int]) -> bool:
    seen.append(engine.sent)
    return engine.sent > 0 and len(set(seen[-5:])) == 1


async def _in_parts(parts: list[bytes]):
    for part in parts:
        yield part


async def _rest(anew: list[bytes], said: bytes) -> list[dict]:
    text = b"".join([part async for part in rest(_in_parts(anew), said)])
    return [json.loads(line[6:]) for line in text.splitlines() if line]


@pytest.mark.parametrize("told", range(len(chunks(1, usage=True)) + 1))
async def test_what_was_told_already_is_not_told_again(told):
    said, anew = frames(chunks(1, usage=True)), frames(chunks(2, usage=True))
    expected = chunks(1 if told else 2, usage=True)[told:]
    for parts in (anew, [b"".join(anew)], [b"".join(anew[:4]), b"".join(anew[4:])]):
        assert await _rest(parts, b"".join(said[:told])) == expected


async def test_other_words_are_not_put_behind_those_that_were_told():
    said, anew = frames(chunks(1, usage=False)), chunks(2, usage=False)
    anew[2]["choices"][0]["delta"] = {"content": "Something else"}
    with pytest.raises(StreamInterrupted, match="same words"):
        await _rest(frames(anew), b"".join(said[:4]))
    with pytest.raises(StreamInterrupted, match="same words"):
        await _rest(said[:3], b"".join(said[:4]))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_whole_answer_that_is_lost_comes_from_elsewhere_for_who_wanted_events_too(stream):
    """Its worker may die when the answer has come, and not yet that this was all."""
    call = Call.of(Endpoint.CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream})
    caching = Caching(ExactCache(None, 60, 10**6, Metrics()), Mail(None, Metrics()), Metrics(), paced=False)
    asked = Asked(Lookup(caching, call, FULL, "key", None, None), lambda: None, Bill(None, ()))
    flight = Flight("key", None, 10**6, stream=False, usage=True)
    flight.write(json.dumps(whole(1)).encode())
    flight.end(FlightLost())
    left = []

    async def again(*_: object) -> CachedAnswer:
        return CachedAnswer(Entry(0, True, [], json.dumps(whole(2)).encode()), call, paced=False)

    answer = SharedAnswer(flight, asked, leads=False, leave=left.append, again=again)
    if stream:
        text = b"".join([part async for part in answer.frames()])
        assert [json.loads(payload)["id"] for payload in payloads(text)][:1] == [whole(2)["id"]]
    else:
        assert json.loads(await answer.body()) == whole(2)
    await answer.aclose()
    assert left == [flight]
