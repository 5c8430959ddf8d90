"""The upstream HTTP client against a raw socket server: framing, pooling, aborts and bounds."""

import asyncio

import pytest

from gateway.errors import DeadlineExceeded, ReplicaUnreachable, UpstreamFailed
from gateway.origin import Origin
from gateway.upstream.connection import Timeouts
from gateway.upstream.exchange import HIGH_WATER_BYTES
from gateway.upstream.http1 import HttpClient
from tests.gateway.raw_server import END, STREAM_HEAD, RawServer, chunk, raw_server, sized


@pytest.fixture
async def client():
    client = HttpClient(Timeouts(connect=1.0, first_byte=0.3, idle=0.3))
    yield client
    client.close()


async def post(client: HttpClient, server: RawServer, body: bytes = b"{}"):
    return await client.post(Origin.parse(server.url), "/v1/x", {"x-test": "1"}, body)


async def fetch(client: HttpClient, server: RawServer) -> bytes:
    exchange = await post(client, server)
    try:
        return await exchange.body(1 << 30)
    finally:
        exchange.close()


async def test_sends_the_request_as_given_and_reads_the_answer(client):
    async with raw_server(sized(b'{"a":1}')) as server:
        exchange = await post(client, server, b"body")
        assert (exchange.status, await exchange.body(1 << 30)) == (200, b'{"a":1}')
        exchange.close()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /v1/x HTTP/1.1",
        f"host: 127.0.0.1:{server.port}".encode(),
        b"content-length: 4",
        b"x-test: 1",
    ]
    assert body == b"body"


async def test_reuses_a_connection_whose_answer_was_read_to_the_end(client):
    async with raw_server(sized(b"one"), sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [b"one", b"two"]
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\none",
        b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\none",
        sized(b"one") + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
    ],
    ids=["connection: close", "HTTP/1.0", "bytes behind the answer"],
)
async def test_does_not_reuse_a_connection_it_cannot_trust(client, answer):
    async with raw_server(answer, sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [b"one", b"two"]
        assert server.connections == 2


async def test_a_half_read_answer_closes_its_connection(client):
    async with raw_server(STREAM_HEAD + chunk(b"one"), sized(b"two")) as server:
        exchange = await post(client, server)
        assert await exchange.read() == b"one"
        exchange.close()
        await asyncio.wait_for(server.cut.wait(), 1.0)
        assert await fetch(client, server) == b"two"


async def test_cancelling_before_the_first_byte_closes_the_connection(client):
    async def silent(reader, writer):
        await reader.read()
        raise ConnectionError

    async with raw_server(silent) as server:
        task = asyncio.create_task(post(client, server))
        while not server.requests:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(server.cut.wait(), 1.0)


async def test_asks_again_on_a_new_connection_when_a_kept_one_was_closed(client):
    async def close_unanswered(reader, writer):
        raise ConnectionError

    async with raw_server(sized(b"one"), close_unanswered, sized(b"three")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [b"one", b"three"]
        assert server.connections == 2


async def test_chunks_with_extensions_and_trailers(client):
    body = b"5;name=value\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n"
    async with raw_server(STREAM_HEAD + body, sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [b"hello", b"two"]
        assert server.connections == 1


async def test_an_answer_in_single_bytes(client):
    async def dribble(reader, writer):
        for byte in STREAM_HEAD + chunk(b"hello") + END:
            writer.write(bytes([byte]))
            await writer.drain()

    async with raw_server(dribble) as server:
        assert await fetch(client, server) == b"hello"


async def test_passes_over_interim_answers(client):
    async with raw_server(b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"one")) as server:
        assert await fetch(client, server) == b"one"


async def test_an_answer_that_ends_with_its_connection(client):
    async def until_eof(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        raise ConnectionError

    async with raw_server(until_eof) as server:
        assert await fetch(client, server) == b"all of it"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\none",
        STREAM_HEAD + b"not-a-size\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\none",
        b"HTTP/1.1 200 OK\r\n" + b"x-filler: " + b"y" * 100_000,
    ],
    ids=["not HTTP", "two framings", "two lengths", "bad chunk size", "gzip not asked for", "headers without end"],
)
async def test_refuses_an_answer_that_breaks_the_protocol(client, answer):
    async with raw_server(answer) as server:
        with pytest.raises(UpstreamFailed):
            await fetch(client, server)


async def test_a_cut_in_the_middle_is_not_an_end(client):
    async def cut(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"half"))
        await writer.drain()
        raise ConnectionError

    async with raw_server(cut) as server:
        exchange = await post(client, server)
        assert await exchange.read() == b"half"
        with pytest.raises(UpstreamFailed):
            await exchange.read()
        exchange.close()


async def test_nobody_listening_is_unreachable(client):
    async with raw_server(b"") as server:
        pass
    with pytest.raises(ReplicaUnreachable):
        await fetch(client, server)


@pytest.mark.parametrize("answer", [b"", STREAM_HEAD + chunk(b"half")], ids=["first byte", "between reads"])
async def test_a_silent_server_runs_into_its_deadline(client, answer):
    async with raw_server(answer) as server:
        with pytest.raises(DeadlineExceeded):
            await fetch(client, server)
        await asyncio.wait_for(server.cut.wait(), 1.0)


async def test_a_slow_reader_pauses_the_server(client):
    sent, block = 0, b"x" * 65536

    async def flood(reader, writer):
        nonlocal sent
        writer.write(STREAM_HEAD)
        for _ in range(1000):
            writer.write(chunk(block))
            await writer.drain()
            sent += len(block)
        writer.write(END)

    async with raw_server(flood) as server:
        exchange = await post(client, server)
        before = -1
        while sent != before:  # the server comes to rest once every buffer on the way is full
            before = sent
            await asyncio.sleep(0.1)
        assert before < 1000 * len(block) / 2
        held = await exchange.read()
        assert len(held) < 4 * HIGH_WATER_BYTES
        assert len(held) + len(await exchange.body(1 << 30)) == 1000 * len(block)
        exchange.close()
