"""A client's bounds: heads that are too large, and connections that keep still for too long."""

import asyncio

import pytest

from gateway.errors import HeadTooLarge
from gateway.server.request_head import RequestHead
from gateway.server.request_parser import RequestParser
from tests.gateway.server.test_hostile import stays
from tests.gateway.server.wire import GET, assert_error, hello, post, read, reply, serving, start, typed_seen, write
from tests.polling import eventually

KIB = 1024
LARGE = [
    b"GET /" + b"x" * (65 * KIB) + b" HTTP/1.1\r\nhost: h\r\n\r\n",
    b"GET /?" + b"x" * (65 * KIB) + b" HTTP/1.1\r\nhost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * (65 * KIB) + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: h\r\n" + b"x" * (65 * KIB) + b": y\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: h\r\n" + b"x: y\r\n" * (11 * KIB) + b"\r\n",
]
NAMES = ["path", "query", "value", "name", "count"]


@pytest.mark.parametrize("request_bytes", LARGE, ids=NAMES)
@pytest.mark.parametrize("step", [1000, 1000_000], ids=["in pieces", "at once"])
async def test_a_head_that_is_too_large_is_a_431(request_bytes, step):
    async with serving(hello) as served, served.client() as client:
        pieces = [request_bytes[at : at + step] for at in range(0, len(request_bytes), step)]
        sending = asyncio.create_task(client.send(*pieces))
        response = await client.response()
        assert_error(response, 431, "head_too_large")
        assert response.all("connection") == ["close"]
        await asyncio.gather(sending, return_exceptions=True)
        assert await served.serves()


class Nobody:
    """Takes requests, and does nothing."""

    def head_begun(self) -> None: ...
    def head_complete(self, head: RequestHead, keep_alive: bool) -> None: ...
    def body_received(self, data: bytes) -> None: ...
    def body_complete(self) -> None: ...


def test_a_head_is_too_large_whatever_else_is_being_handled():
    """Python then puts that into an error's context, where httptools has put ours."""
    parser = RequestParser(Nobody(), KIB)
    try:
        raise ValueError("something else")
    except ValueError:
        with pytest.raises(HeadTooLarge):
            parser.feed(LARGE[0])


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n"])
async def test_an_endless_head_is_a_431(begin):
    async def flood(client):
        await client.send(begin)
        while True:
            await client.send(b"x: y\r\n" * 100 if begin.endswith(b"\n") else b"x" * 500)

    async with serving(hello) as served, served.client() as client:
        flooding = asyncio.create_task(flood(client))
        try:
            assert_error(await client.response(), 431, "head_too_large")
        finally:
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)


async def test_a_head_just_within_its_bound_is_served():
    async with serving(hello) as served, served.client() as client:
        head = b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * (63 * KIB) + b"\r\n\r\n"
        for size in (500, 100_000):
            await client.send(*[head[at : at + size] for at in range(0, len(head), size)])
            assert (await client.response()).status == 200


@pytest.mark.parametrize("body", [100 * KIB, 200 * KIB])
async def test_a_body_is_not_counted_into_the_next_head(body):
    async with serving(typed_seen) as served, served.client() as client:
        request, following = post(b"x" * body), post(b"next")
        await client.send(request[:1000], request[1000:] + following[:10])
        assert (await client.response()).json()["size"] == body
        await client.send(following[10:])
        assert (await client.response()).json()["body"] == "next"


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: h\r\n", b"\r\n"])
async def test_a_connection_without_a_whole_head_is_closed_in_time(sent):
    async with serving(hello, head_s=0.2) as served, served.client() as client:
        await client.send(sent)
        assert await client.rest() == b""
        await eventually(lambda: not served.connections)
        assert await served.serves()


@pytest.mark.parametrize("drop", [b"x", b"\r\n", b"x: y\r\n"])
async def test_a_head_that_drips_is_closed_in_time(drop):
    async def drip(client):
        await client.send(b"\r\n" if drop == b"\r\n" else b"GET / HTTP/1.1\r\n")
        while True:
            await client.send(drop)
            await asyncio.sleep(0.02)

    async with serving(hello, head_s=0.3) as served, served.client() as client:
        dripping = asyncio.create_task(drip(client))
        assert await client.rest() == b""
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_second_head_that_drips_is_closed_in_time():
    async with serving(hello, head_s=0.2, idle_s=100) as served, served.client() as client:
        assert (await client.ask()).status == 200
        await client.send(b"GET / HTT")
        assert await client.rest() == b""


async def test_half_a_head_behind_a_request_does_not_wait_as_long_as_an_idle_connection():
    async with serving(hello, head_s=0.2, idle_s=100) as served, served.client() as client:
        await client.send(GET + b"GET / HTT")
        assert (await client.response()).status == 200
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed_in_time():
    async with serving(hello, head_s=0.2, idle_s=0.2) as served, served.client() as client:
        for _ in range(3):
            assert (await client.ask()).status == 200
        assert await client.rest() == b""
        await eventually(lambda: not served.connections)


async def test_a_dropped_body_that_does_not_come_is_closed_in_time():
    async with serving(hello, head_s=0.2, idle_s=100, body_s=0.2) as served, served.client() as client:
        assert (await client.ask(post(b"abc")[:-1])).status == 200
        assert await client.rest() == b""


@pytest.mark.parametrize("before", [b"", b"GET /quick HTTP/1.1\r\nhost: h\r\n\r\n"], ids=["alone", "pipelined"])
@pytest.mark.parametrize("after", [b"", b"GET / HT"], ids=["whole", "with half a head behind it"])
async def test_an_answer_may_take_longer_than_any_bound(before, after):
    release = asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/quick":
            await reply(send, b"quick")
            return
        await start(send)
        await write(send, b"begun", more=True)
        await release.wait()
        await write(send, b"done")

    async with serving(app, head_s=0.2, idle_s=0.2, body_s=0.2) as served, served.client() as client:
        await client.send(before + GET + after)
        if before:
            assert (await client.response()).body == b"quick"
        await client.head()
        assert await client.chunk() == b"begun"
        assert await stays(client, 0.6)
        release.set()
        assert await client.chunk() == b"done"


async def test_a_client_that_does_not_read_its_answer_is_not_kept_for_ever():
    async def app(scope, receive, send):
        await read(receive)
        await reply(send, b"x" * (16 * 1024 * KIB))

    async with serving(app, graceful_s=0, head_s=0.2, stalled_s=0.2) as served, served.client(65536) as client:
        await client.send(GET + GET)  # the second does not keep the first alive
        await eventually(lambda: served.connections and served.connections[0].paused is not None)
        await eventually(lambda: not served.connections, within=5)


async def test_a_client_that_reads_steadily_gets_a_large_answer_whole():
    size = 16 * 1024 * KIB

    async def app(scope, receive, send):
        await reply(send, b"x" * size)

    async with serving(app, head_s=0.1, idle_s=0.1, stalled_s=2.0) as served, served.client(65536) as client:
        await client.send(GET)
        await client.head()
        received = 0
        while received < size:
            received += len(await client.reader.read(1024 * KIB))
            await asyncio.sleep(0.02)  # all of it takes longer than an idle connection may live
    assert received == size
