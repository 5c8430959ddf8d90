"""What `gateway.upstream.client` promises of `relay`, kept by both clients."""

import asyncio

import pytest

from gateway.errors import StreamInterrupted, UpstreamFailed
from gateway.upstream.client import UpstreamClient
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, in_pieces, raw_server, then_close
from tests.gateway.upstream.clients import LIMIT, fetch, happens, post
from tests.gateway.upstream.test_contract_flow import Flood
from tests.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTS = [b"one ", b"two ", b"three"]


class Sink:
    """Takes everything; may be made full, may have enough, may refuse."""

    def __init__(self, enough: int | None = None, refusal: Exception | None = None) -> None:
        self.taken: list[bytes] = []
        self.full: asyncio.Future[None] | None = None
        self.some = asyncio.Event()
        self._enough = enough
        self._refusal = refusal

    @property
    def done(self) -> bool:
        return self._enough is not None and self.size >= self._enough

    @property
    def size(self) -> int:
        return sum(map(len, self.taken))

    def write(self, data: bytes) -> bool:
        self.some.set()
        if self._refusal is not None:
            raise self._refusal
        self.taken.append(data)
        return not self.done and self.full is None

    def has_room(self) -> None:
        full, self.full = self.full, None
        assert full is not None
        full.set_result(None)


async def test_hands_on_everything_in_order_and_keeps_the_connection(client):
    answer = STREAM_HEAD + b"".join(map(chunk, PARTS)) + END
    pieces = [answer[i : i + 7] for i in range(0, len(answer), 7)]
    async with raw_server(in_pieces(*pieces), answer) as server:
        sink, response = Sink(), await post(client, server)
        await response.relay(sink)
        assert (b"".join(sink.taken), response.complete) == (b"".join(PARTS), True)
        response.close()
        assert await fetch(client, server) == b"".join(PARTS)
    assert server.connections == 1


async def test_hands_on_what_had_arrived_before(client):
    async with raw_server(STREAM_HEAD + b"".join(map(chunk, PARTS)) + END) as server:
        sink, response = Sink(), await post(client, server)
        await eventually(lambda: response.complete)
        await response.relay(sink)
        response.close()
    assert b"".join(sink.taken) == b"".join(PARTS)


async def test_hands_on_each_part_before_the_next_is_sent(client):
    go_on = asyncio.Event()

    async def one_by_one(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"first"))
        await go_on.wait()
        writer.write(chunk(b"second") + END)

    async with raw_server(one_by_one) as server:
        sink, response = Sink(), await post(client, server)
        relaying = asyncio.create_task(response.relay(sink))
        await happens(sink.some)
        assert sink.taken == [b"first"]
        go_on.set()
        await relaying
        response.close()
    assert b"".join(sink.taken) == b"firstsecond"


async def test_a_full_sink_pauses_the_server_until_it_has_room(client):
    flood = Flood(blocks=1000)
    async with raw_server(flood) as server:
        sink, response = Sink(), await post(client, server)
        sink.full = asyncio.get_running_loop().create_future()
        relaying = asyncio.create_task(response.relay(sink))
        assert await flood.rests() < 1000 * 65536
        sink.has_room()
        await relaying
        response.close()
    assert sink.size == 1000 * 65536


class FullForAMoment(Sink):
    """Has room again before anybody else gets a turn: its socket was writable in the same poll."""

    def write(self, data: bytes) -> bool:
        super().write(data)
        loop = asyncio.get_running_loop()
        self.full = loop.create_future()
        loop.call_soon(self.has_room)
        return False


async def relay_while_waiting(client: UpstreamClient, sink: Sink) -> bytes:
    """The first part arrives while the relay waits, the second after it was written; returns what the sink leaves."""
    relays = asyncio.Event()

    async def in_two_parts(reader, writer):
        writer.write(STREAM_HEAD)
        await relays.wait()
        writer.write(chunk(b"first"))
        await sink.some.wait()
        writer.write(chunk(b"second") + END)

    async with raw_server(in_two_parts) as server:
        response = await post(client, server)
        relaying = asyncio.create_task(response.relay(sink))
        await asyncio.sleep(0)
        relays.set()
        await asyncio.wait_for(relaying, 15)
        left = await asyncio.wait_for(response.body(LIMIT), 15)
        response.close()
    return left


async def test_a_sink_that_is_full_for_a_moment_gets_the_rest(client):
    sink = FullForAMoment()
    assert await relay_while_waiting(client, sink) == b""
    assert sink.taken == [b"first", b"second"]


async def test_what_is_left_by_a_sink_that_has_enough_and_is_full_can_be_read(client):
    sink = FullForAMoment(enough=5)
    assert await relay_while_waiting(client, sink) == b"second"
    assert sink.taken == [b"first"]


async def test_a_sink_that_has_enough_ends_it(client):
    async with raw_server(Flood()) as server:
        sink, response = Sink(enough=100_000), await post(client, server)
        await response.relay(sink)
        assert not response.complete
        response.close()
        await happens(server.cut)
    assert sink.size >= 100_000


async def test_a_cut_ends_it_after_what_had_come(client):
    async with raw_server(then_close(STREAM_HEAD + chunk(b"half"))) as server:
        sink, response = Sink(), await post(client, server)
        with pytest.raises(UpstreamFailed):
            await response.relay(sink)
        response.close()
    assert b"".join(sink.taken) == b"half"


async def test_a_refusal_of_the_sink_ends_it(client):
    async with raw_server(Flood()) as server:
        response = await post(client, server)
        with pytest.raises(StreamInterrupted, match="no frame"):
            await response.relay(Sink(refusal=StreamInterrupted("no frame")))
        response.close()
        await happens(server.cut)


async def test_a_refusal_counts_also_when_the_answer_ends_with_it(client):
    async with raw_server(STREAM_HEAD + chunk(b"last") + END) as server:
        response = await post(client, server)
        with pytest.raises(StreamInterrupted, match="no frame"):
            await response.relay(Sink(refusal=StreamInterrupted("no frame")))
        response.close()


@pytest.mark.parametrize("full", [False, True], ids=["waiting for the server", "waiting for room"])
async def test_cancelling_it_leaves_the_answer_to_its_owner(client, full):
    async with raw_server(STREAM_HEAD + chunk(b"half")) as server:
        sink, response = Sink(), await post(client, server)
        if full:
            sink.full = asyncio.get_running_loop().create_future()
        relaying = asyncio.create_task(response.relay(sink))
        await happens(sink.some)
        relaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relaying
        assert not server.cut.is_set()
        response.close()
        await happens(server.cut)
    assert sink.full is None or not sink.full.cancelled()
