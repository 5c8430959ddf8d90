"""Responses on the wire: framing, order, keep-alive, and a reader's own pace."""

import asyncio
import http
import socket

import httpx
import pytest

from tests.gateway.server.wire import FAREWELL, GET, hello, reply, serving, start, write
from tests.polling import eventually


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "host: h", *fields, "", ""]).encode()


async def test_a_connection_serves_many_requests():
    async with serving(hello) as served, served.client() as client:
        for number in range(50):
            response = await client.ask(get(f"/{number}"))
            assert (response.version, response.status, response.body) == ("HTTP/1.1", 200, b"/%d" % number)
            assert response.all("connection") == []
        assert len(served.connections) == 1


async def test_a_real_client_gets_many_answers_at_once():
    async with serving(hello) as served, httpx.AsyncClient(base_url=served.url) as client:
        answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(100)))
    assert [answer.text for answer in answers] == [f"/{number}" for number in range(100)]


async def test_pipelined_requests_are_answered_one_after_the_other():
    running, most, release = 0, 0, asyncio.Event()

    async def app(scope, receive, send):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if scope["path"] == "/0":
            await release.wait()
        await asyncio.sleep(0)
        await start(send)
        await write(send, scope["path"].encode(), more=True)
        running -= 1
        await write(send)

    async with serving(app) as served, served.client() as client:
        await client.send(b"".join(get(f"/{number}") for number in range(6)))
        assert await client.silent()
        release.set()
        assert [(await client.response()).body for _ in range(6)] == [b"/%d" % number for number in range(6)]
    assert most == 1


async def test_as_many_requests_may_wait_as_the_bounds_say():
    async with serving(hello, pipelined=3) as served, served.client() as client:
        await client.send(b"".join(get(f"/{number}") for number in range(4)))  # one is answered, three wait
        assert [(await client.response()).body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]


async def test_too_many_pipelined_requests_end_their_connection_and_no_other():
    release = asyncio.Event()

    async def app(scope, receive, send):
        await release.wait()
        await reply(send)

    async with serving(app, pipelined=3) as served, served.client() as good, served.client() as greedy:
        await good.send(GET)
        await eventually(lambda: len(served.connections) == 2)
        await greedy.send(GET * 50)
        assert await greedy.rest() == b""
        await eventually(lambda: len(served.connections) == 1)
        release.set()
        assert (await good.response()).body == b"ok"


@pytest.mark.parametrize("field", ["x: y", "connection: keep-alive"])
@pytest.mark.parametrize("sized", [True, False])
async def test_http_1_0_is_answered_without_chunks_and_closed(field, sized):
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"6")] if sized else [])
        await write(send, b"abc", more=True)
        await write(send, b"def")

    async with serving(app) as served, served.client() as client:
        response = await client.ask(get("/", field, version="1.0"))
        assert response.all("transfer-encoding") == []
        assert response.all("connection") == ["close"]
        assert response.body == b"abcdef"
        assert await client.rest() == b""


@pytest.mark.parametrize("sized", [True, False])
async def test_head_gets_the_framing_and_no_body(sized):
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"5")] if sized else [])
        await write(send, b"he", more=True)
        await write(send, b"llo")

    async with serving(app) as served, served.client() as client:
        await client.send(get("/", method="HEAD") + FAREWELL)
        response = await client.response(bodiless=True)
        assert (response.status, response.all("content-length")) == (200, ["5"] if sized else [])
        assert (await client.response()).body == b"hello"
        assert await client.rest() == b""


@pytest.mark.parametrize("status", [204, 304])
async def test_a_bodiless_status_has_no_body_and_no_chunks(status):
    async def app(scope, receive, send):
        await start(send, status if scope["path"] == "/none" else 200)
        await write(send, b"some")

    async with serving(app) as served, served.client() as client:
        await client.send(get("/none") + get("/some"))
        response = await client.response(bodiless=True)
        assert (response.status, response.all("transfer-encoding")) == (status, [])
        assert (await client.response()).body == b"some"


@pytest.mark.parametrize("status", [200, 418, 429, 499, 599])
async def test_the_status_line_names_the_status(status):
    async def app(scope, receive, send):
        await reply(send, status=status)

    async with serving(app) as served, served.client() as client:
        await client.send(FAREWELL)
        raw = await client.rest()
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
    assert raw.startswith(f"HTTP/1.1 {status} {phrase}\r\n".encode())


@pytest.mark.parametrize("field", ["connection: close", "Connection: Close", "connection: foo, close"])
async def test_a_client_may_end_the_connection(field):
    async with serving(hello) as served, served.client() as client:
        response = await client.ask(get("/a", field))
        assert (response.body, response.all("connection")) == (b"/a", ["close"])
        assert await client.rest() == b""


@pytest.mark.parametrize("value", [b"close", b"Close"])
async def test_the_application_may_end_the_connection(value):
    async def app(scope, receive, send):
        await reply(send, headers=[(b"connection", value)])

    async with serving(app) as served, served.client() as client:
        response = await client.ask()
        assert (response.body, response.all("connection")) == (b"ok", ["close"])
        assert await client.rest() == b""


@pytest.mark.parametrize("body", [b"", b"abc"])
async def test_a_body_is_sized_when_its_length_is_known_and_chunked_otherwise(body):
    async def app(scope, receive, send):
        if scope["path"] == "/sized":
            await reply(send, body)
        else:
            await start(send)
            await write(send, body)

    async with serving(app) as served, served.client() as client:
        sized, chunked = await client.ask(get("/sized")), await client.ask(get("/chunked"))
        assert (sized.all("content-length"), sized.all("transfer-encoding")) == ([str(len(body))], [])
        assert (chunked.all("content-length"), chunked.all("transfer-encoding")) == ([], ["chunked"])
        assert sized.body == chunked.body == body


async def test_chunks_are_the_servers_and_said_once():
    """ASGI: a server ignores an application's transfer-encoding."""

    async def app(scope, receive, send):
        await start(send, headers=[(b"transfer-encoding", b"chunked")])
        await write(send, b"abc")

    async with serving(app) as served, served.client() as client:
        await client.send(FAREWELL)
        raw = (await client.rest()).lower()
        assert raw.count(b"transfer-encoding:") == 1


async def test_repeated_response_headers_are_all_sent_in_order():
    cookies = [(b"set-cookie", b"a=1"), (b"x", b"y"), (b"set-cookie", b"b=2")]

    async def app(scope, receive, send):
        await reply(send, headers=cookies)

    async with serving(app) as served, served.client() as client:
        response = await client.ask()
        sent = [field for field in response.fields if field[0] in {"set-cookie", "x"}]
        assert sent == [(name.decode(), value.decode()) for name, value in cookies]


@pytest.mark.parametrize("first", [b"first", b""])
async def test_the_head_leaves_with_the_first_of_the_body(first):
    go_on, end = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        await start(send)
        await go_on.wait()
        await write(send, first, more=True)
        await end.wait()
        await write(send, b"last")

    async with serving(app) as served, served.client() as client:
        await client.send(GET)
        assert await client.silent()
        go_on.set()
        packet = await client.reader.read(65536)
        assert packet.endswith(b"\r\n\r\n" + (b"5\r\nfirst\r\n" if first else b""))
        end.set()
        assert await client.chunk() == b"last"


async def test_a_small_response_is_one_packet():
    async with serving(hello) as served, served.client() as client:
        await client.send(get("/whole"))
        assert (await client.reader.read(65536)).endswith(b"\r\n\r\n/whole")


async def test_small_packets_are_not_held_back_by_the_kernel():
    async with serving(hello) as served, served.client() as client:
        await client.ask()
        connection = served.connections[0]._transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_each_chunk_arrives_before_the_next_is_made():
    read = asyncio.Semaphore(0)

    async def app(scope, receive, send):
        await start(send)
        for number in range(5):
            await write(send, b"token %d" % number, more=True)
            await read.acquire()
        await write(send)

    async with serving(app) as served, served.client() as client:
        await client.send(GET)
        await client.head()
        for number in range(5):
            assert await client.chunk() == b"token %d" % number
            read.release()
        assert await client.chunk() == b""


async def test_the_application_writes_no_faster_than_the_client_reads():
    piece, pieces, written = b"x" * 65536, 512, 0

    async def app(scope, receive, send):
        nonlocal written
        await start(send, headers=[(b"content-length", b"%d" % (len(piece) * pieces))])
        for number in range(pieces):
            await write(send, piece, more=number < pieces - 1)
            written += 1

    async with serving(app) as served, served.client(receive_buffer=65536) as client:
        await client.send(GET)
        await eventually(lambda: served.connections and served.connections[0].paused is not None)
        assert await eventually_still(lambda: written) < pieces
        transport = served.connections[0]._transport
        assert transport.get_write_buffer_size() <= 2 * len(piece)
        response = await client.response()
        assert len(response.body) == len(piece) * pieces
        assert written == pieces


async def eventually_still(value):
    """The value, once it has stopped changing."""
    last = None
    while (now := value()) != last:
        last = now
        await asyncio.sleep(0.05)
    return now


async def test_an_impatient_application_may_give_up_one_write_and_go_on_with_the_next():
    gave_up, outcome = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        await start(send)
        try:
            async with asyncio.timeout(0.2):
                while True:
                    await write(send, b"x" * 65536, more=True)
        except TimeoutError:
            gave_up.set()
        try:
            await write(send, b"last words")
            outcome.set_result("whole")
        except BaseException as error:
            outcome.set_result(repr(error))
            raise

    async with serving(app) as served, served.client(receive_buffer=65536) as client:
        await client.send(GET)
        await gave_up.wait()
        raw = await asyncio.wait_for(read_to_the_end(client), 15)
        assert await outcome == "whole"
        assert raw.endswith(b"last words\r\n0\r\n\r\n")


async def read_to_the_end(client) -> bytes:
    tail = b""
    while not tail.endswith(b"0\r\n\r\n") and (piece := await client.reader.read(65536)):
        tail = (tail + piece)[-100:]
    return tail
