"""What `gateway.upstream.client` promises, kept by both clients: time, back-pressure, and who closes what."""

import asyncio
import random
import socket
from collections.abc import Iterator

import pytest

from gateway.errors import DeadlineExceeded, GatewayError, ReplicaUnreachable, UpstreamFailed
from gateway.origin import Origin
from gateway.upstream.exchange import HIGH_WATER_BYTES
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, raw_server, sized, then_close
from tests.gateway.upstream.clients import LIMIT, fetch, happens, open_sockets, post
from tests.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

BLOCK = chunk(b"x" * 65536)


class Flood:
    """A script that writes an endless answer, or one of `blocks` blocks, as fast as it is taken."""

    def __init__(self, blocks: int | None = None) -> None:
        self.sent = 0
        self._blocks = blocks

    async def __call__(self, reader, writer) -> None:
        writer.write(STREAM_HEAD)
        while self.sent != self._blocks:
            writer.write(BLOCK)
            await writer.drain()
            self.sent += 1
        writer.write(END)

    async def rests(self) -> int:
        """Waits until every buffer on the way is full, and gives what went into them."""
        before = -1
        while self.sent != before:
            before = self.sent
            await asyncio.sleep(0.2)
        return before * 65536


# Time


@pytest.fixture
def blackhole() -> Iterator[Origin]:
    """A listener that takes no more connections: its queue is full, and further SYNs are dropped."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(listener.getsockname())
    yield Origin("127.0.0.1", listener.getsockname()[1], tls=False)
    for each in (*waiting, listener):
        each.close()


async def test_a_connection_that_does_not_come_about_is_unreachable(hasty, blackhole):
    before = open_sockets()
    with pytest.raises(ReplicaUnreachable):
        await hasty.post(blackhole, "/", {}, b"")
    await eventually(lambda: open_sockets() == before)


async def test_cancelling_a_connection_attempt_leaves_nothing_open(client, blackhole):
    before = open_sockets()
    task = asyncio.create_task(client.post(blackhole, "/", {}, b""))
    await eventually(lambda: open_sockets() > before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: open_sockets() == before)


SILENT = {
    "first byte": b"",
    "in the head": b"HTTP/1.1 200 OK\r\n",
    "before the body": STREAM_HEAD,
    "between chunks": STREAM_HEAD + chunk(b"half"),
    "in a sized body": sized(b"hello")[:-1],
}


async def test_a_silent_server_runs_into_its_deadline(hasty):
    async def outcome(answer: bytes) -> tuple[str, int]:
        async with raw_server(answer) as server:
            with pytest.raises(GatewayError) as error:
                await fetch(hasty, server)
            await happens(server.cut)
            return error.typename, len(server.requests)

    outcomes = await asyncio.gather(*map(outcome, SILENT.values()))  # all of them wait
    assert dict(zip(SILENT, outcomes, strict=True)) == dict.fromkeys(SILENT, (DeadlineExceeded.__name__, 1))


async def test_a_slow_answer_is_not_a_silent_one(steady):
    async def slowly(reader, writer):
        writer.write(STREAM_HEAD)
        for _ in range(8):
            writer.write(chunk(b"x"))
            await writer.drain()
            await asyncio.sleep(0.3)
        writer.write(END)

    async with raw_server(slowly) as server:
        assert await fetch(steady, server) == b"x" * 8


async def test_a_kept_connection_has_no_deadline(hasty):
    async with raw_server(sized(b"one"), sized(b"two")) as server:
        assert await fetch(hasty, server) == b"one"
        await asyncio.sleep(1.6)
        assert await fetch(hasty, server) == b"two"
        assert server.connections == 1


# Back-pressure


async def test_a_slow_reader_pauses_the_server(client):
    flood = Flood(blocks=800)
    async with raw_server(flood) as server:
        response = await post(client, server)
        held = await flood.rests()
        assert held < 800 * 65536 / 2
        first = await response.read()
        assert len(first) < 4 * HIGH_WATER_BYTES
        assert len(first) + len(await response.body(LIMIT)) == 800 * 65536
        response.close()


async def test_a_slow_reader_is_not_a_silent_server(hasty):
    flood = Flood(blocks=800)
    async with raw_server(flood) as server:
        response = await post(hasty, server)
        await flood.rests()
        await asyncio.sleep(1.6)
        assert len(await response.body(LIMIT)) == 800 * 65536
        response.close()


@pytest.mark.parametrize(
    "framing", [b"", b"content-length: 8000000\r\nconnection: close\r\n"], ids=["until EOF", "sized"]
)
async def test_a_slow_reader_gets_all_of_a_last_answer(client, framing):
    body = random.randbytes(8_000_000)
    async with raw_server(then_close(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + body)) as server:
        response = await post(client, server)
        parts = []
        while part := await response.read():
            parts.append(part)
            await asyncio.sleep(0.01)
        assert b"".join(parts) == body
        response.close()


# Closing


async def test_closing_in_the_body_aborts_the_connection_and_never_uses_it_again(client):
    async with raw_server(STREAM_HEAD + chunk(b"one"), sized(b"two")) as server:
        response = await post(client, server)
        assert await response.read() == b"one"
        assert not response.complete
        response.close()
        response.close()
        await happens(server.cut)
        assert await fetch(client, server) == b"two"
        assert server.connections == 2


async def test_closing_while_the_server_is_paused_aborts_the_connection(client):
    flood = Flood()
    async with raw_server(flood) as server:
        response = await post(client, server)
        await flood.rests()
        response.close()
        await happens(server.cut)


async def test_closing_a_complete_answer_that_nobody_read_keeps_its_connection(client):
    async with raw_server(sized(b"one"), sized(b"two")) as server:
        response = await post(client, server)
        await eventually(lambda: response.complete)
        response.close()
        response.close()
        assert await fetch(client, server) == b"two"
        assert server.connections == 1


async def test_closing_twice_does_not_touch_the_connections_next_answer(client):
    async with raw_server(sized(b"one"), STREAM_HEAD + chunk(b"two"), sized(b"three")) as server:
        first = await post(client, server)
        assert await first.body(LIMIT) == b"one"
        first.close()
        second = await post(client, server)
        first.close()
        assert await second.read() == b"two"
        assert not server.cut.is_set()
        second.close()
        await happens(server.cut)
        assert server.connections == 1


async def test_reading_goes_on_after_the_end(client):
    async with raw_server(sized(b"one")) as server:
        response = await post(client, server)
        assert [await response.read() for _ in range(3)] == [b"one", b"", b""]
        response.close()


async def test_reading_a_closed_answer_fails(client):
    async with raw_server(STREAM_HEAD + chunk(b"one")) as server:
        response = await post(client, server)
        assert await response.read() == b"one"
        response.close()
        with pytest.raises(UpstreamFailed):
            await asyncio.wait_for(response.read(), 5)


async def test_closing_wakes_who_reads(client):
    async with raw_server(STREAM_HEAD + chunk(b"one")) as server:
        response = await post(client, server)
        assert await response.read() == b"one"
        reading = asyncio.create_task(response.read())
        await asyncio.sleep(0.05)
        response.close()
        with pytest.raises(UpstreamFailed):
            await asyncio.wait_for(reading, 5)


async def test_reading_a_failed_answer_fails_again(client):
    async with raw_server(then_close(STREAM_HEAD + chunk(b"half"))) as server:
        response = await post(client, server)
        for _ in range(2):
            with pytest.raises(UpstreamFailed):
                await response.body(LIMIT)
        assert not response.complete
        response.close()


async def test_a_body_may_be_too_long(client):
    async with raw_server(sized(b"x" * 100), sized(b"two")) as server:
        for limit, fits in ((100, True), (99, False)):
            response = await post(client, server)
            if fits:
                assert len(await response.body(limit)) == limit
            else:
                with pytest.raises(UpstreamFailed):
                    await response.body(1)
            response.close()


async def test_an_endless_body_is_given_up_at_its_limit(client):
    async with raw_server(Flood()) as server:
        response = await post(client, server)
        with pytest.raises(UpstreamFailed):
            await response.body(1_000_000)
        response.close()
        await happens(server.cut)


async def test_draining_keeps_a_connection_whose_answer_ends_soon(client):
    async def end_late(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"one"))
        await read.wait()
        writer.write(chunk(b"left") + END)

    read = asyncio.Event()
    async with raw_server(end_late, sized(b"two")) as server:
        response = await post(client, server)
        assert await response.read() == b"one"
        read.set()
        await response.drain(15.0)
        assert response.complete
        response.close()
        assert await fetch(client, server) == b"two"
        assert server.connections == 1


@pytest.mark.parametrize("answer", [b"", chunk(b"and more"), b"not a chunk\r\n"], ids=["silent", "goes on", "broken"])
async def test_draining_gives_up_silently(client, answer):
    async def go_on(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"one"))
        await read.wait()
        writer.write(answer)

    read = asyncio.Event()
    async with raw_server(go_on, sized(b"two")) as server:
        response = await post(client, server)
        assert await response.read() == b"one"
        read.set()
        await response.drain(0.2)
        assert not response.complete
        response.close()
        await happens(server.cut)
        assert await fetch(client, server) == b"two"


# Cancellation


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "half a head"])
async def test_cancelling_before_the_head_closes_the_connection(client, answer):
    before = open_sockets()
    async with raw_server(answer, sized(b"two")) as server:
        task = asyncio.create_task(post(client, server))
        await eventually(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await happens(server.cut)
        await eventually(lambda: open_sockets() == before + 1)  # the listener is left
        assert await fetch(client, server) == b"two"


async def test_cancelling_a_read_leaves_the_answer_to_its_owner(client):
    async def go_on(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"one"))
        await cancelled.wait()
        writer.write(chunk(b"two") + END)

    cancelled = asyncio.Event()
    async with raw_server(go_on) as server:
        response = await post(client, server)
        assert await response.read() == b"one"
        reading = asyncio.create_task(response.read())
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        cancelled.set()
        assert await response.body(LIMIT) == b"two"
        response.close()


async def test_cancelling_a_request_that_is_still_being_sent_closes_the_connection(client):
    async def take_nothing(reader, writer):
        accepted.set()
        await over.wait()
        writer.transport.abort()

    accepted, over, before = asyncio.Event(), asyncio.Event(), open_sockets()
    listener = await asyncio.start_server(take_nothing, "127.0.0.1", 0)
    origin = Origin("127.0.0.1", listener.sockets[0].getsockname()[1], tls=False)
    task = asyncio.create_task(client.post(origin, "/", {}, b"x" * 30_000_000))
    await happens(accepted)
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: open_sockets() == before + 2)  # the listener and the server's end are left
    over.set()
    listener.close()
    await listener.wait_closed()


async def test_closing_the_client_closes_what_it_kept(client):
    before = open_sockets()
    async with raw_server(sized(b"one")) as server:
        await asyncio.gather(*(fetch(client, server) for _ in range(5)))
        await client.aclose()
        await eventually(lambda: server.open == 0)
        await eventually(lambda: open_sockets() == before + 1)  # the listener is left
        await client.aclose()
