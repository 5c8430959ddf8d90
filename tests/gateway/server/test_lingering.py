"""The last answer of a connection reaches a client that is still sending."""

import asyncio

import pytest

from tests.gateway.server.wire import GET, assert_error, chunks, hello, reply, serving
from tests.polling import eventually

LAST = {
    "1.0": b"POST /a HTTP/1.0\r\ncontent-length: 4000000\r\n\r\n",
    "close": b"POST /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 4000000\r\n\r\n",
    "chunked": b"POST /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
}
PIECES = [b"x" * 100_000] * 40


@pytest.mark.parametrize("head", LAST.values(), ids=LAST)
async def test_an_answer_arrives_though_its_request_is_still_being_sent(head):
    async with serving(hello) as served, served.client() as client:
        await client.send(head, *(chunks(*PIECES[:1]) if b"chunked" in head else piece for piece in PIECES))
        assert (await client.response()).body == b"/a"
        assert await client.reader.read() == b""


async def test_a_refusal_arrives_though_its_head_is_still_being_sent():
    async with serving(hello) as served, served.client() as client:
        await client.send(GET[:-2], *(b"x: %b\r\n" % piece for piece in PIECES))
        assert_error(await client.response(), 431, "head_too_large")
        assert await client.reader.read() == b""


async def test_an_early_answer_arrives_though_the_worker_stops_meanwhile():
    async with serving(hello) as served, served.client() as client:
        await client.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 4000000\r\n\r\n", PIECES[0])
        (connection,) = served.connections
        await eventually(lambda: connection._receiving and not connection._open)
        served.server.should_exit = True
        await eventually(lambda: not served.server.servers[0].is_serving())
        await client.send(*PIECES[1:])
        assert (await client.response()).body == b"/a"
        assert await client.reader.read() == b""


async def test_an_answer_arrives_while_the_worker_stops():
    release, begun = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        await release.wait()
        await reply(send)

    async with serving(app) as served, served.client() as client:
        await client.send(LAST["close"].replace(b"connection: close\r\n", b""))
        await begun.wait()
        served.server.should_exit = True
        await eventually(lambda: served.server.servers and not served.server.servers[0].is_serving())
        release.set()
        await client.send(*PIECES)
        assert (await client.response()).body == b"ok"
        assert await client.reader.read() == b""


async def test_what_still_comes_is_no_request():
    paths = []

    async def app(scope, receive, send):
        paths.append(scope["path"])
        await reply(send)

    async with serving(app) as served, served.client() as client:
        await client.send(LAST["close"].replace(b"4000000", b"3"))
        assert (await client.response()).body == b"ok"
        await client.send(b"abc" + GET, GET)
        assert await client.reader.read() == b""
        client.writer.close()
        await eventually(lambda: not served.connections)
    assert paths == ["/a"]


async def test_a_client_that_goes_on_sending_is_left_after_some_bodies():
    async with serving(hello, body_bytes=1000) as served, served.client() as client:
        await client.send(LAST["close"])
        assert (await client.response()).body == b"/a"
        await client.send(b"x" * 4000)
        assert served.connections
        await client.send(b"x")
        await eventually(lambda: not served.connections)


async def test_a_client_that_does_not_end_its_side_is_left_in_time():
    async with serving(hello, body_s=0.2, head_s=0.2) as served, served.client() as client:
        await client.send(LAST["close"])
        assert (await client.response()).body == b"/a"
        assert served.connections
        await eventually(lambda: not served.connections)
