"""`Expect: 100-continue`: the client holds its body back until somebody wants it.

Source: https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
"""

import asyncio

import pytest

from tests.gateway.server.wire import (
    FAREWELL,
    assert_error,
    chunked_head,
    chunks,
    hello,
    post,
    read,
    reply,
    serving,
    start,
    typed_seen,
    write,
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = b"expect: 100-continue"


@pytest.mark.parametrize("field", [EXPECT, b"Expect: 100-Continue", b"EXPECT: 100-CONTINUE", EXPECT + b" "])
async def test_continue_is_sent_when_the_application_wants_the_body(field):
    wanted = asyncio.Event()

    async def app(scope, receive, send):
        await wanted.wait()
        await typed_seen(scope, receive, send)

    async with serving(app) as served, served.client() as client:
        request = post(b"abc", field)
        await client.send(request[:-3])
        assert await client.silent()
        wanted.set()
        assert await client.reader.readexactly(len(CONTINUE)) == CONTINUE
        await client.send(request[-3:])
        response = await client.response()
        assert response.json()["body"] == "abc"
        assert response.all("connection") == []
        assert (await client.ask(post(b"next"))).json()["body"] == "next"


async def test_continue_is_sent_once_for_a_body_in_pieces():
    async with serving(typed_seen) as served, served.client() as client:
        await client.send(chunked_head(EXPECT, b"connection: close"))
        assert await client.reader.readexactly(len(CONTINUE)) == CONTINUE
        await client.send(*[chunks(b"x")] * 5, b"0\r\n\r\n")
        raw = await client.rest()
        assert raw.startswith(b"HTTP/1.1 200 ")
        assert raw.count(CONTINUE) == 0


async def test_a_final_status_without_reading_closes_the_connection():
    async with serving(hello) as served, served.client() as client:
        await client.send(post(b"abc", EXPECT)[:-3])
        response = await client.response()
        assert (response.status, response.all("connection")) == (200, ["close"])
        assert await client.rest() == b""


async def test_a_body_declared_too_large_is_never_asked_for():
    async with serving(typed_seen, body_bytes=2) as served, served.client() as client:
        await client.send(post(b"abc", EXPECT)[:-3])
        response = await client.response()
        assert_error(response, 413, "body_too_large")
        assert response.all("connection") == ["close"]
        assert await client.rest() == b""


async def test_a_body_that_is_already_there_needs_no_continue():
    async with serving(typed_seen) as served, served.client() as client:
        response = await client.ask(post(b"abc", EXPECT))
        assert (response.status, response.json()["body"]) == (200, "abc")


async def test_a_body_that_was_sent_unasked_costs_nobody_the_connection():
    async with serving(typed_seen) as served, served.client() as client:
        response = await client.ask(post(b"abc", EXPECT))
        assert response.all("connection") == []


async def test_http_1_0_knows_no_continue():
    """RFC 9110, 10.1.1: a server must ignore the expectation of an HTTP/1.0 request."""
    async with serving(typed_seen) as served, served.client() as client:
        request = post(b"abc", EXPECT).replace(b"HTTP/1.1", b"HTTP/1.0")
        await client.send(request[:-3])
        assert await client.silent()
        await client.send(request[-3:])
        assert (await client.response()).json()["body"] == "abc"


async def test_continue_never_comes_in_the_middle_of_a_response():
    async def app(scope, receive, send):
        await start(send)
        await write(send, b"begun", more=True)
        await write(send, await read(receive))

    async with serving(app) as served, served.client() as client:
        request = post(b"abc", EXPECT)
        await client.send(request[:-3])
        assert (await client.head()).status == 200
        assert await client.chunk() == b"begun"
        await client.send(request[-3:])
        assert await client.rest() == b"3\r\nabc\r\n0\r\n\r\n"


async def test_continue_keeps_its_place_behind_an_earlier_answer():
    release = asyncio.Event()

    async def app(scope, receive, send):
        if scope["method"] == "GET":
            await release.wait()
            await reply(send, b"first")
        else:
            await reply(send, await read(receive))

    async with serving(app) as served, served.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n" + post(b"abc", EXPECT)[:-3])
        assert await client.silent()
        release.set()
        assert (await client.response()).body == b"first"
        assert await client.reader.readexactly(len(CONTINUE)) == CONTINUE
        await client.send(b"abc" + FAREWELL)
        assert (await client.response()).body == b"abc"


async def test_a_body_that_does_not_come_after_all_is_a_408():
    async with serving(typed_seen, body_s=0.2) as served, served.client() as client:
        await client.send(post(b"abc", EXPECT)[:-3])
        assert await client.reader.readexactly(len(CONTINUE)) == CONTINUE
        assert_error(await client.response(), 408, "request_timeout")
