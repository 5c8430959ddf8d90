"""What `gateway.upstream.client` promises, kept by both clients: answers that are not HTTP, or not only HTTP.

Both clients refuse nearly all of them, with UpstreamFailed. `READS` and `GIVES_UP` are the whole of their differences.
"""

import asyncio

import pytest

from gateway.errors import DeadlineExceeded, UpstreamFailed
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, raw_server, sized, then_close
from tests.gateway.upstream.clients import LIMIT, fetch, happens, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEGABYTE = b"y" * (1 << 20)
MANY = b"".join(b"x-%d: y\r\n" % number for number in range(100_000))


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""])


def length(value: bytes) -> bytes:
    return head(b"content-length: " + value) + b"hello"


def coding(*values: bytes) -> bytes:
    return head(*(b"transfer-encoding: " + value for value in values)) + chunk(b"hello") + END


def with_line(line: bytes) -> bytes:
    return head(line, b"content-length: 5") + b"hello"


MALFORMED = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "no version": b"HTTP 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "unknown version": b"HTTP/3.7 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status of letters": b"HTTP/1.1 abc OK\r\ncontent-length: 5\r\n\r\nhello",
    "switched protocols": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello",
    "101 without upgrade": b"HTTP/1.1 101 Switching\r\n\r\n" + sized(b"hello"),
    "gzip": head(b"content-encoding: gzip", b"content-length: 5") + b"hello",
    "gzip, identity": head(b"content-encoding: gzip, identity", b"content-length: 5") + b"hello",
    # Where does it end?
    "length and chunks": head(b"content-length: 5", b"transfer-encoding: chunked") + chunk(b"hello") + END,
    "chunks and length": head(b"transfer-encoding: chunked", b"content-length: 5") + chunk(b"hello") + END,
    "two lengths": head(b"content-length: 5", b"content-length: 4") + b"hello",
    "one length twice": head(b"content-length: 5", b"content-length: 5") + b"hello",
    "list of lengths": length(b"5, 5"),
    "negative length": length(b"-5"),
    "length with plus": length(b"+5"),
    "hexadecimal length": length(b"0x5"),
    "decimal length": length(b"5.0"),
    "length with a space": length(b"5 5"),
    "length of letters": length(b"five"),
    "no length": length(b""),
    "length over 64 bits": length(b"18446744073709551616"),
    "length far over 64 bits": length(b"9" * 400),
    "gzip, chunked": coding(b"gzip, chunked"),
    "gzip and chunked": coding(b"gzip", b"chunked"),
    "chunked twice": coding(b"chunked", b"chunked"),
    "chunked, identity": then_close(coding(b"chunked, identity")),
    "almost chunked": then_close(coding(b"xchunked")),
    "identity": then_close(coding(b"identity")),
    # Chunks
    "chunk size of letters": STREAM_HEAD + b"size\r\nhello\r\n" + END,
    "no chunk size": STREAM_HEAD + b"\r\nhello\r\n" + END,
    "negative chunk size": STREAM_HEAD + b"-5\r\nhello\r\n" + END,
    "chunk size with 0x": STREAM_HEAD + b"0x5\r\nhello\r\n" + END,
    "chunk size over 64 bits": STREAM_HEAD + b"10000000000000005\r\nhello\r\n" + END,
    "chunk size far over 64 bits": STREAM_HEAD + b"f" * 400 + b"\r\nhello\r\n" + END,
    "chunk size of 63 bits": then_close(STREAM_HEAD + b"7fffffffffffffff\r\nhello\r\n" + END),
    "longer than its chunk": STREAM_HEAD + b"4\r\nhello\r\n" + END,
    "shorter than its chunk": STREAM_HEAD + b"6\r\nhello\r\n" + END,
    "no CRLF behind a chunk": STREAM_HEAD + b"5\r\nhello0\r\n\r\n",
    "LF behind a chunk size": STREAM_HEAD + b"5\nhello\r\n" + END,
    "LF behind a chunk": STREAM_HEAD + b"5\r\nhello\n" + END,
    "space behind a chunk size": STREAM_HEAD + b"5 \r\nhello\r\n" + END,
    # Header lines
    "folded": with_line(b"x-a: 1\r\n 2"),
    "folded length": head(b"content-length:\r\n 5") + b"hello",
    "space before a colon": with_line(b"x-a : 1"),
    "space before the colon of a length": head(b"content-length : 5") + b"hello",
    "space before a name": head(b" content-length: 5") + b"hello",
    "no colon": with_line(b"x-a"),
    "no name": with_line(b": 1"),
    "LF only": with_line(b"x-a: 1").replace(b"\r\n", b"\n"),
    "one LF": with_line(b"x-a: 1\nx-b: 2"),
    "CR only": with_line(b"x-a: 1\rx-b: 2"),
    "NUL in a value": with_line(b"x-a: 1\x002"),
    "NUL in a name": with_line(b"x-\x00a: 1"),
    "control byte in a value": with_line(b"x-a: 1\x012"),
    "DEL in a value": with_line(b"x-a: 1\x7f2"),
    "control byte in a name": with_line(b"x-\x01a: 1"),
    # Without end
    "endless header": b"HTTP/1.1 200 OK\r\nx-a: " + MEGABYTE,
    "endless name": b"HTTP/1.1 200 OK\r\nx-" + MEGABYTE,
    "endless headers": b"HTTP/1.1 200 OK\r\n" + MANY,
    "endless reason": b"HTTP/1.1 200 " + MEGABYTE,
    "endless interim answers": b"HTTP/1.1 100 Continue\r\nx-a: y\r\n\r\n" * 30_000,
    "huge header": with_line(b"x-a: " + MEGABYTE),
    "very many headers": with_line(MANY[:-2]),
    "endless trailer": STREAM_HEAD + chunk(b"hello") + b"0\r\nx-a: " + MEGABYTE,
    "endless trailers": STREAM_HEAD + chunk(b"hello") + b"0\r\n" + MANY,
}

# Where a client does other than refuse with UpstreamFailed. aiohttp parses leniently; what it reads is what was meant.
READS = {
    "aiohttp": {
        "shorter than its chunk": b"hello\r",  # by the size it gave; the LF alone passes for its end
        "LF behind a chunk": b"hello",
        "space behind a chunk size": b"hello",
        "folded": b"hello",
        "folded length": b"hello",
        "space before the colon of a length": b"hello",
        "space before a name": b"hello",
        "LF only": b"hello",
        "one LF": b"hello",
    }
}
# It does not count interim answers; the deadline for the head ends them.
GIVES_UP = {"aiohttp": {"endless interim answers"}}


@pytest.mark.parametrize(("name", "answer"), MALFORMED.items(), ids=MALFORMED)
async def test_a_malformed_answer_is_refused(steady, kind, name, answer):
    async with raw_server(answer, sized(b"two")) as server:
        if name in READS.get(kind, {}):
            assert await fetch(steady, server) == READS[kind][name]
        else:
            with pytest.raises((UpstreamFailed, DeadlineExceeded)) as refusal:
                await fetch(steady, server)
            assert refusal.type is (DeadlineExceeded if name in GIVES_UP.get(kind, ()) else UpstreamFailed)
            await happens(server.cut)
            assert len(server.requests) == 1
        assert await fetch(steady, server) == b"two"


@pytest.mark.parametrize("name", ["not HTTP", "switched protocols", "two lengths", "chunk size of letters"])
async def test_a_malformed_answer_on_a_kept_connection_is_not_asked_for_again(steady, name):
    async with raw_server(sized(b"one"), MALFORMED[name], sized(b"three")) as server:
        assert await fetch(steady, server) == b"one"
        with pytest.raises(UpstreamFailed):
            await fetch(steady, server)
        assert len(server.requests) == 2


@pytest.mark.parametrize("rest", [b"size\r\n", b"5\r\nhello0\r\n\r\n", b"f" * 20, b"0\r\nno trailer\r\n\r\n"])
async def test_an_answer_that_goes_on_malformed_is_refused(steady, rest):
    async def go_on(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"one"))
        await read.wait()
        writer.write(rest)

    read = asyncio.Event()
    async with raw_server(go_on, sized(b"two")) as server:
        response = await post(steady, server)
        assert await response.read() == b"one"
        read.set()
        with pytest.raises(UpstreamFailed):
            await response.body(LIMIT)
        response.close()
        await happens(server.cut)
        assert await fetch(steady, server) == b"two"


@pytest.mark.parametrize("size", [10**12, 2**63 - 1, 2**63, 2**64 - 1])
async def test_a_length_that_never_comes_is_a_cut(client, size):
    async with raw_server(then_close(length(b"%d" % size)), sized(b"two")) as server:
        with pytest.raises(UpstreamFailed):
            await fetch(client, server)
        assert await fetch(client, server) == b"two"
