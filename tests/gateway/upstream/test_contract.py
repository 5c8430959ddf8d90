"""What `gateway.upstream.client` promises, kept by both clients: answers, and the connections they come on."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import ReplicaSilent, ReplicaUnreachable, UpstreamFailed
from gateway.origin import Origin
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, in_pieces, raw_server, sized, then_close
from tests.gateway.upstream.clients import LIMIT, fetch, happens, open_sockets, post
from tests.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Whole answers that leave their connection fit for use, and the body of each.
ANSWERS = {
    "sized": (sized(b"hello"), b"hello"),
    "empty": (sized(b""), b""),
    "an error status": (sized(b"hello", "500 Internal Server Error"), b"hello"),
    "no reason": (b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello", b"hello"),
    "headers as they come": (b"HTTP/1.1 200 OK\r\nContent-LENGTH:\t 5 \t\r\nX:\r\n\r\nhello", b"hello"),
    "encoding: identity": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 5\r\n\r\nhello",
        b"hello",
    ),
    "body like a head": (sized(b"HTTP/1.1 500 No\r\n\r\n0\r\n\r\n"), b"HTTP/1.1 500 No\r\n\r\n0\r\n\r\n"),
    "chunked": (STREAM_HEAD + chunk(b"hel") + chunk(b"lo") + END, b"hello"),
    "chunked, empty": (CHUNKED + END, b""),
    "chunk sizes": (CHUNKED + b"00A\r\n0123456789\r\n0b\r\n0123456789a\r\n000\r\n\r\n", b"01234567890123456789a"),
    "chunk extensions": (CHUNKED + b'5;name=value;other="a b;c"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
    "trailers": (CHUNKED + chunk(b"hello") + b"0\r\nx-a: 1\r\nx-b: 2\r\n\r\n", b"hello"),
    "CRLF in chunks": (CHUNKED + chunk(b"\r\n0\r\n") + chunk(b"\r\n") + END, b"\r\n0\r\n\r\n"),
    "100": (CONTINUE + sized(b"hello"), b"hello"),
    "100 and 103": (CONTINUE + HINTS + HINTS + CHUNKED + chunk(b"hello") + END, b"hello"),
}


@pytest.mark.parametrize(("answer", "body"), ANSWERS.values(), ids=ANSWERS)
async def test_reads_a_whole_answer_and_uses_its_connection_again(client, answer, body):
    async with raw_server(answer, sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [body, b"two"]
        assert server.connections == 1


async def test_goes_over_a_new_connection_where_it_has_to(client):
    async with raw_server(sized(b"one"), sized(b"two")) as server:
        assert await fetch(client, server) == b"one"
        response = await client.post(Origin.parse(server.url), "/v1/x", {}, b"{}", fresh=True)
        assert await response.body(LIMIT) == b"two"
        response.close()
        assert server.connections == 2


@pytest.mark.parametrize(("answer", "body"), ANSWERS.values(), ids=ANSWERS)
async def test_reads_an_answer_in_single_bytes(client, answer, body):
    async with raw_server(in_pieces(*(bytes([byte]) for byte in answer)), sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [body, b"two"]
        assert server.connections == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(ANSWERS)), cuts=st.lists(st.integers(0, 120), max_size=8))
async def test_the_split_of_an_answer_does_not_matter(client, name, cuts):
    answer, body = ANSWERS[name]
    ends = [*sorted(cuts), len(answer)]
    pieces = [answer[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    async with raw_server(in_pieces(*filter(None, pieces)), sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [body, b"two"]
        assert server.connections == 1


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.binary(min_size=1, max_size=3000), max_size=6), whole=st.booleans())
async def test_a_body_comes_out_as_it_went_in(client, parts, whole):
    body = b"".join(parts)
    answer = sized(body) if whole else STREAM_HEAD + b"".join(map(chunk, parts)) + END
    async with raw_server(answer) as server:
        assert await fetch(client, server) == body


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (
            b"HTTP/1.1 200 OK\r\nConnection: Close\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"hello") + END,
            b"hello",
        ),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (then_close(b"HTTP/1.0 200 OK\r\n\r\nhello"), b"hello"),
        (then_close(b"HTTP/1.1 200 OK\r\n\r\nhello"), b"hello"),
        (then_close(b"HTTP/1.1 200 OK\r\n\r\n"), b""),
    ],
    ids=["close, sized", "close, chunked", "HTTP/1.0", "HTTP/1.0 until EOF", "until EOF", "until EOF, empty"],
)
async def test_reads_a_last_answer_and_does_not_use_its_connection_again(client, answer, body):
    async with raw_server(answer, sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [body, b"two"]
        assert server.connections == 2


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("framing", [b"", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"])
async def test_an_answer_without_body_ends_with_its_head(client, status, framing):
    async with raw_server(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, framing), sized(b"two")) as server:
        response = await post(client, server)
        assert (response.status, await response.body(LIMIT), response.complete) == (status, b"", True)
        response.close()
        assert await fetch(client, server) == b"two"


async def test_gives_status_and_headers(client):
    head = b"HTTP/1.1 429 Slow Down\r\nRetry-After: 1\r\nX-Twice: a\r\nx-twice: b\r\nX-Odd: \xe9\xff\r\n"
    trailers = b"0\r\nretry-after: 9\r\nx-late: 1\r\n\r\n"
    answer = HINTS + head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"hello") + trailers
    async with raw_server(answer) as server:
        response = await post(client, server)
        assert await response.body(LIMIT) == b"hello"
        assert response.status == 429
        assert response.headers == {
            b"retry-after": b"1",
            b"x-twice": b"b",
            b"x-odd": b"\xe9\xff",
            b"transfer-encoding": b"chunked",
        }
        response.close()


async def test_takes_a_long_header(client):
    answer = b"HTTP/1.1 200 OK\r\nx-long: %s\r\ncontent-length: 5\r\n\r\nhello" % (b"y" * 20_000)
    async with raw_server(answer) as server:
        assert await fetch(client, server) == b"hello"


async def test_sends_the_request_and_nothing_else(client):
    async with raw_server(sized(b"")) as server:
        for body in (b"body", b""):
            (await client.post(Origin.parse(server.url), "/v1/x?a=%20b", {"x-test": "1"}, body)).close()
    for request, body in zip(server.requests, (b"body", b""), strict=True):
        head, _, sent = request.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        assert first == b"POST /v1/x?a=%20b HTTP/1.1"
        assert {line.lower() for line in lines} == {
            f"host: 127.0.0.1:{server.port}".encode(),
            f"content-length: {len(body)}".encode(),
            b"x-test: 1",
        }
        assert sent == body


async def test_does_not_send_a_header_that_would_become_two(client):
    async with raw_server(sized(b"")) as server:
        with pytest.raises(ValueError, match=r".*"):
            await client.post(Origin.parse(server.url), "/v1/x", {"x-id": "1\r\nauthorization: Bearer stolen"}, b"")
        assert server.requests == []


async def test_a_redirect_is_an_answer_and_a_cookie_is_forgotten(client, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answer = b"HTTP/1.1 307 Elsewhere\r\nlocation: /other\r\nset-cookie: a=b\r\ncontent-length: 5\r\n\r\nhello"
    async with raw_server(answer) as server:
        for _ in range(2):
            response = await post(client, server)
            assert (response.status, await response.body(LIMIT)) == (307, b"hello")
            response.close()
    assert [request.split(b"\r\n")[0] for request in server.requests] == [b"POST /v1/x HTTP/1.1"] * 2
    assert b"cookie" not in server.requests[1].lower()


async def test_nobody_listening_is_unreachable(client):
    async with raw_server() as server:
        pass
    with pytest.raises(ReplicaUnreachable):
        await fetch(client, server)


async def test_many_at_once_get_each_their_own_answer(client):
    async def echo(reader, writer):
        body = server.requests[-1].partition(b"\r\n\r\n")[2]
        await asyncio.sleep(0)
        half = len(body) // 2
        writer.write(STREAM_HEAD + chunk(body[:half]))
        await writer.drain()
        await asyncio.sleep(0.001)
        writer.write(chunk(body[half:]) + END)

    bodies = [f"request {number}".encode() for number in range(100)]
    async with raw_server(echo) as server:
        for _ in range(2):
            assert await asyncio.gather(*(fetch(client, server, body) for body in bodies)) == bodies
        assert server.connections <= len(bodies)


CUTS = {
    "in the status line": b"HTTP/1.1 20",
    "in a header": b"HTTP/1.1 200 OK\r\ncontent-len",
    "before the head's end": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
    "after an interim answer": CONTINUE,
    "before the body": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    "in the body": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
    "in a chunk's size": STREAM_HEAD + b"5",
    "in a chunk": STREAM_HEAD + b"5\r\nhell",
    "behind a chunk": STREAM_HEAD + b"5\r\nhello",
    "between chunks": STREAM_HEAD + chunk(b"hello"),
    "before the last CRLF": STREAM_HEAD + chunk(b"hello") + b"0\r\n",
    "in the trailers": STREAM_HEAD + chunk(b"hello") + b"0\r\nx-a: 1\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("answer", CUTS.values(), ids=CUTS)
async def test_a_cut_is_not_an_end(client, kind, answer, reset):
    async with raw_server(then_close(answer, reset), sized(b"two")) as server:
        with pytest.raises(UpstreamFailed) as failure:
            await fetch(client, server)
        # aiohttp does not tell that an interim answer, or half a head before a reset, had come.
        blurred = kind == "aiohttp" and (answer == CONTINUE or (reset and STREAM_HEAD not in answer))
        assert failure.type is UpstreamFailed or (blurred and failure.type is ReplicaSilent)
        assert len(server.requests) == 1
        assert await fetch(client, server) == b"two"


async def test_a_reset_is_no_end_of_an_answer_until_eof(client):
    async with raw_server(then_close(b"HTTP/1.0 200 OK\r\n\r\nhello", reset=True)) as server:
        with pytest.raises(UpstreamFailed):
            await fetch(client, server)


# A kept connection that the server has closed


CLOSED = then_close(b"")


async def test_asks_again_on_a_new_connection_when_a_kept_one_was_closed(client):
    async with raw_server(sized(b"one"), CLOSED, sized(b"three")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [b"one", b"three"]
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_asks_again_once_however_many_kept_connections_are_stale(client):
    gate = asyncio.Event()

    async def together(reader, writer):
        if len(server.requests) == 3:
            gate.set()
        await gate.wait()
        writer.write(sized(b"one"))

    async with raw_server(together, together, together, CLOSED, sized(b"five"), sized(b"six")) as server:
        await asyncio.gather(*(fetch(client, server) for _ in range(3)))
        assert server.connections == 3
        assert await fetch(client, server) == b"five"
        assert (server.connections, len(server.requests)) == (4, 5)


async def test_does_not_ask_a_third_time(client):
    async with raw_server(sized(b"one"), CLOSED, CLOSED, sized(b"four")) as server:
        assert await fetch(client, server) == b"one"
        with pytest.raises(ReplicaSilent):
            await fetch(client, server)
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_who_is_gone_once_it_had_the_request_was_silent_and_not_unreachable(client):
    async def end(reader, writer):
        server.refuse()
        raise ConnectionError

    async with raw_server(sized(b"one"), end) as server:
        assert await fetch(client, server) == b"one"
        with pytest.raises(ReplicaSilent):
            await fetch(client, server)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_does_not_ask_again_who_has_thought_about_it(client, monkeypatch):
    """An engine that a request ends does not get it twice."""

    async def thinks(reader, writer):
        await asyncio.sleep(0.5)
        raise ConnectionError

    for module in ("http1", "aiohttp_client"):
        monkeypatch.setattr(f"gateway.upstream.{module}.STALE_S", 0.2)
    async with raw_server(sized(b"one"), thinks, sized(b"three")) as server:
        assert await fetch(client, server) == b"one"
        with pytest.raises(ReplicaSilent):
            await fetch(client, server)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_does_not_ask_again_on_a_new_connection(client):
    async with raw_server(CLOSED, sized(b"two")) as server:
        with pytest.raises(ReplicaSilent):
            await fetch(client, server)
        assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [b"H", b"HTTP/1.1 200 OK\r\ncontent-", STREAM_HEAD], ids=["byte", "header", "head"])
async def test_does_not_ask_again_what_was_answered_in_part(client, answer):
    async with raw_server(sized(b"one"), then_close(answer), sized(b"three")) as server:
        assert await fetch(client, server) == b"one"
        with pytest.raises(UpstreamFailed):
            await fetch(client, server)
        assert len(server.requests) == 2


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_does_not_use_a_kept_connection_that_was_closed_meanwhile(client, reset):
    async def answer_and_leave(reader, writer):
        writer.write(sized(b"one"))
        await gone.wait()
        await then_close(b"", reset)(reader, writer)

    gone, before = asyncio.Event(), open_sockets()
    async with raw_server(answer_and_leave, sized(b"two")) as server:
        assert await fetch(client, server) == b"one"
        gone.set()
        await eventually(lambda: server.open == 0)
        await eventually(lambda: open_sockets() <= before + 1)  # the listener is left
        assert await fetch(client, server) == b"two"
        assert len(server.requests) == 2


# Bytes behind an answer


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize(
    "extra",
    [b"garbage\r\n\r\n", b"\x00", sized(b"forged"), STREAM_HEAD + chunk(b"forged"), CONTINUE],
    ids=["garbage", "NUL", "answer", "half an answer", "interim"],
)
@pytest.mark.parametrize("answer", [sized(b"one"), CHUNKED + chunk(b"one") + END], ids=["sized", "chunked"])
async def test_what_follows_an_answer_is_no_other_answer(client, kind, answer, extra, late):
    async def answer_twice(reader, writer):
        writer.write(answer + (b"" if late else extra))
        await writer.drain()
        if late:
            await taken.wait()
            writer.write(extra)
            await writer.drain()
            await asyncio.sleep(0.05)
        sent.set()

    taken, sent = asyncio.Event(), asyncio.Event()
    async with raw_server(answer_twice, sized(b"two")) as server:
        try:
            assert await fetch(client, server) == b"one"
        except UpstreamFailed:
            assert kind == "aiohttp"  # its parser gives nothing of a read that ends badly
            assert not late
        taken.set()
        await happens(sent)
        assert await fetch(client, server) == b"two"
        assert server.connections == 2
