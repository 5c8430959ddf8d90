"""Request bodies: however they come, within their bounds, and when nobody wants them."""

import asyncio
import hashlib

import pytest

from gateway.errors import GatewayError, RequestTimeout
from tests.gateway.server.wire import (
    A_WHILE_S,
    FAREWELL,
    GET,
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
from tests.polling import eventually

END = b"0\r\n\r\n"
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [
        (GET, b""),
        (post(b""), b""),
        (post(b"abc"), b"abc"),
        (post(b"a\0\r\n\r\nb"), b"a\0\r\n\r\nb"),
        (b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
        (b"POST / HTTP/1.1\r\nhost: h\r\nCONTENT-LENGTH:   3  \r\n\r\nabc", b"abc"),
        (chunked_head() + END, b""),
        (chunked_head() + chunks(b"a", b"bc") + END, b"abc"),
        (chunked_head() + b"3;name=value;other=\"q;q\"\r\nabc\r\n" + END, b"abc"),
        (chunked_head() + b"0000000003\r\nabc\r\n000\r\n\r\n", b"abc"),
        (b"POST / HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunks(b"abc") + END, b"abc"),
        (b"POST / HTTP/1.0\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "byte by byte"])
async def test_a_body_arrives_however_it_is_framed(request_bytes, body, in_pieces):
    async with serving(typed_seen) as served, served.client() as client:
        await client.send(*([bytes([byte]) for byte in request_bytes] if in_pieces else [request_bytes]))
        answer = (await client.response()).json()
        assert (answer["size"], answer["body"]) == (len(body), body.decode())
        if b"HTTP/1.1" in request_bytes:
            assert (await client.ask(post(b"next"))).json()["body"] == "next"


async def test_the_application_sees_the_request_as_it_was_sent():
    scopes = []

    async def app(scope, receive, send):
        scopes.append({**scope})
        await reply(send)

    async with serving(app) as served, served.client() as client:
        address = client.writer.get_extra_info("sockname")
        await client.ask(b"GET /a%20b/%2F%C3%A9?q=%20&r HTTP/1.1\r\nHost: h:1\r\nX-Two: a\r\nx-two: b\r\nX-E:\r\n\r\n")
        scope = scopes[0]
        assert (scope["type"], scope["method"], scope["http_version"]) == ("http", "GET", "1.1")
        assert (scope["scheme"], scope["root_path"]) == ("http", "")
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
            "/a b//é", b"/a%20b/%2F%C3%A9", b"q=%20&r",
        )  # fmt: skip
        assert scope["headers"] == [(b"host", b"h:1"), (b"x-two", b"a"), (b"x-two", b"b"), (b"x-e", b"")]
        assert (scope["client"], scope["server"]) == (address, ("127.0.0.1", served.port))


async def test_white_space_around_a_header_value_is_no_part_of_it():
    """RFC 9112, 5.1: a parser takes it away."""
    async with serving(typed_seen) as served, served.client() as client:
        answer = await client.ask(b"GET / HTTP/1.1\r\nhost: h\r\nx: \t a b \t \r\n\r\n")
        assert ["x", "a b"] in answer.json()["headers"]


async def test_a_body_is_handed_over_as_it_arrives():
    parts = asyncio.Queue()

    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            parts.put_nowait(message["body"])
        await reply(send)

    async with serving(app) as served, served.client() as client:
        await client.send(chunked_head())
        for part in (b"one", b"two", b"three"):
            await client.send(chunks(part))
            assert await parts.get() == part
        await client.send(END)
        assert (await client.response()).status == 200


async def test_a_large_body_within_the_bound_is_whole():
    body = bytes(range(256)) * 4096 * 8  # 8 MiB, the bound itself
    async with serving(typed_seen) as served, served.client() as client:
        sending = asyncio.create_task(client.send(post(body)))
        answer = (await client.response()).json()
        await sending
    assert (answer["size"], answer["sha"]) == (len(body), hashlib.sha256(body).hexdigest())


async def test_a_body_declared_too_large_is_refused_before_it_is_sent():
    async with serving(typed_seen) as served, served.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % (10 * MIB))
        assert_error(await client.response(), 413, "body_too_large")
        assert await served.serves()


@pytest.mark.parametrize("length", [8 * MIB + 1, 2**63, 2**64 - 1])
async def test_lengths_beyond_the_bound_are_refused(length):
    async with serving(typed_seen) as served, served.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % length)
        assert_error(await client.response(), 413, "body_too_large")


async def test_a_chunked_body_is_refused_once_it_is_too_large():
    sent = 0
    async with serving(typed_seen) as served, served.client() as client:
        await client.send(chunked_head())

        async def flood():
            nonlocal sent
            while sent < 10:
                await client.send(chunks(b"x" * MIB))
                sent += 1
            await client.send(END)

        sending = asyncio.create_task(flood())
        assert_error(await client.response(), 413, "body_too_large")
        assert sent >= 8
        await sending
        assert (await client.ask(post(b"next"))).json()["body"] == "next"


@pytest.mark.parametrize("size", [1000, 60_000, 100_000, 2 * MIB])
async def test_what_is_left_of_a_body_nobody_read_is_dropped(size):
    async with serving(hello, body_s=3) as served, served.client() as client:
        sending = asyncio.create_task(client.send(post(b"x" * size, target=b"/first") + FAREWELL))
        assert (await client.response()).body == b"/first"
        assert (await client.response()).body == b"/"
        await sending


@pytest.mark.parametrize("size", [10 * MIB, 20 * MIB])
async def test_what_is_left_of_a_refused_body_is_dropped(size):
    async with serving(typed_seen, body_s=5) as served, served.client() as client:
        sending = asyncio.create_task(client.send(post(b"x" * size) + FAREWELL))
        assert_error(await client.response(), 413, "body_too_large")
        assert (await client.response()).status == 200
        await sending


async def test_a_body_nobody_reads_yet_waits_in_the_clients_own_buffers():
    wanted, body = asyncio.Event(), b"x" * (7 * MIB)

    async def app(scope, receive, send):
        await wanted.wait()
        await typed_seen(scope, receive, send)

    async with serving(app) as served, served.client() as client:
        sending = asyncio.create_task(client.send(post(body)))
        await eventually(lambda: served.connections and not served.connections[0]._reading)
        [exchange] = served.connections[0]._open
        await asyncio.sleep(A_WHILE_S)
        assert 64 * 1024 < exchange.body.unread <= 64 * 1024 + 256 * 1024  # at most one more read of the socket
        wanted.set()
        assert (await client.response()).json()["size"] == len(body)
        await sending
        assert (await client.ask(post(b"next"))).json()["body"] == "next"


@pytest.mark.parametrize("begin", [post(b"abcd")[:-1], post(b"abcd")[:-4], chunked_head() + chunks(b"abc")])
async def test_a_body_that_does_not_come_is_a_408(begin):
    async with serving(typed_seen, body_s=0.2, head_s=0.2) as served, served.client() as client:
        await client.send(begin)
        assert_error(await client.response(), 408, "request_timeout")
        assert await client.rest() == b""
        assert await served.serves()


async def test_a_body_that_drips_is_a_408_too():
    async def drip(client):
        while True:
            await client.send(chunks(b"x"))
            await asyncio.sleep(0.02)

    async with serving(typed_seen, body_s=0.3) as served, served.client() as client:
        await client.send(chunked_head())
        dripping = asyncio.create_task(drip(client))
        try:
            assert_error(await client.response(), 408, "request_timeout")
        finally:
            dripping.cancel()


async def test_a_body_is_late_also_when_the_application_was_busy_at_its_deadline():
    busy, outcome = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        await receive()
        await receive()  # waits, and starts the clock
        await busy.wait()
        try:
            async with asyncio.timeout(3):
                await receive()
        except (GatewayError, TimeoutError) as error:
            outcome.set_result(type(error))
        await reply(send)

    async with serving(app, body_s=0.2) as served, served.client() as client:
        await client.send(chunked_head() + chunks(b"a"))
        await asyncio.sleep(A_WHILE_S)
        await client.send(chunks(b"b"))
        await asyncio.sleep(0.4)
        busy.set()
        assert await outcome is RequestTimeout


async def test_a_late_body_stays_late_when_it_is_asked_for_again():
    outcomes = asyncio.Queue()

    async def app(scope, receive, send):
        for _ in range(2):
            try:
                async with asyncio.timeout(3):
                    await receive()
            except (GatewayError, TimeoutError) as error:
                outcomes.put_nowait(type(error))
        await reply(send)

    async with serving(app, body_s=0.1) as served, served.client() as client:
        await client.send(post(b"abc")[:-3])
        assert [await outcomes.get(), await outcomes.get()] == [RequestTimeout, RequestTimeout]


async def test_the_body_may_be_asked_for_again_after_its_end():
    """Then it waits for the end of the exchange, as ASGI has it."""
    after = asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        assert await read(receive) == b"abc"
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        await reply(send)
        after.set_result(await waiting)

    async with serving(app) as served, served.client() as client:
        assert (await client.ask(post(b"abc"))).body == b"ok"
        assert await after == {"type": "http.disconnect"}


async def test_trailers_are_no_headers():
    """RFC 9110, 6.5.1: a trailer must not be merged into the header section."""
    later = []

    async def app(scope, receive, send):
        await read(receive)
        later.extend(scope["headers"])
        await reply(send)

    async with serving(app) as served, served.client() as client:
        head = chunked_head(b"authorization: Bearer weak")
        await client.ask(head + chunks(b"abc") + b"0\r\nauthorization: Bearer strong\r\nx-late: 1\r\n\r\n")
    assert [value for name, value in later if name == b"authorization"] == [b"Bearer weak"]
    assert b"x-late" not in dict(later)


@pytest.mark.parametrize("read_it", [True, False], ids=["app reads", "app does not read"])
async def test_endless_trailers_end(read_it):
    async def app(scope, receive, send):
        if read_it:
            await typed_seen(scope, receive, send)
        else:
            await asyncio.Event().wait()

    async with serving(app, graceful_s=0) as served, served.client() as client:
        await client.send(chunked_head() + b"0\r\n")
        await eventually(lambda: served.connections and served.connections[0]._open)
        exchange = served.connections[0]._open[0]
        try:
            for number in range(64):  # 4 MiB
                await client.send(b"".join(b"x-%d-%d: %b\r\n" % (number, line, b"y" * 1000) for line in range(64)))
        except (ConnectionError, RuntimeError):  # the latter from uvloop
            return
        kept = sum(len(value) for _, value in exchange._scope["headers"])
        assert kept < 256 * 1024 or exchange.answered


@pytest.mark.parametrize(
    "upgrade",
    [
        b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk",
        b"connection: upgrade\r\nupgrade: websocket",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "body", [b"content-length: 3\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
async def test_a_request_that_would_like_another_protocol_keeps_its_body(upgrade, body):
    """As Java's own client and `curl --http2` send every POST to a plain port."""
    async with serving(typed_seen) as served, served.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: h\r\n" + upgrade + b"\r\n" + body)
        response = await client.response()
        assert (response.status, response.json()["body"]) == (200, "abc")


async def test_an_early_answer_is_whole_while_its_body_still_comes():
    """A refusal that streams: the client reads it all, then sends what is left."""

    async def app(scope, receive, send):
        await start(send, 403)
        await write(send, b"no", more=True)
        await write(send, b"pe")

    async with serving(app) as served, served.client() as client:
        request = post(b"x" * 1000)
        await client.send(request[:-500])
        assert (await client.response()).body == b"nope"
        await client.send(request[-500:])
        assert (await client.ask()).body == b"nope"
