"""What is special about our own upstream client; what every client promises is in tests/gateway/upstream."""

import pytest

from gateway.origin import Origin
from gateway.upstream import http1
from gateway.upstream.http1 import HttpClient
from gateway.upstream.timeouts import Timeouts
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, raw_server, sized
from tests.gateway.upstream.clients import LIMIT, fetch, post
from tests.polling import eventually


@pytest.fixture
async def client():
    client = HttpClient(Timeouts(connect=15.0, first_byte=15.0, idle=15.0))
    yield client
    await client.aclose()


async def test_sends_the_request_byte_for_byte(client):
    async with raw_server(sized(b"")) as server:
        (await client.post(Origin.parse(server.url), "/v1/x", {"x-test": "1"}, b"body")).close()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /v1/x HTTP/1.1",
        f"host: 127.0.0.1:{server.port}".encode(),
        b"content-length: 4",
        b"x-test: 1",
    ]
    assert body == b"body"


@pytest.mark.parametrize("extra", [b"garbage\r\n\r\n", sized(b"forged"), b"\x00"], ids=["garbage", "answer", "NUL"])
@pytest.mark.parametrize("answer", [sized(b"one"), STREAM_HEAD + chunk(b"one") + END], ids=["sized", "chunked"])
async def test_what_follows_an_answer_leaves_it_whole(client, answer, extra):
    async with raw_server(answer + extra, sized(b"two")) as server:
        assert [await fetch(client, server), await fetch(client, server)] == [b"one", b"two"]
        assert server.connections == 2


async def test_what_arrived_before_a_failure_is_still_read(client):
    async with raw_server(STREAM_HEAD + chunk(b"one") + b"not a chunk\r\n") as server:
        response = await post(client, server)
        assert await response.read() == b"one"
        response.close()


async def test_keeps_a_bounded_number_of_connections(client, monkeypatch):
    monkeypatch.setattr(http1, "MAX_IDLE_CONNECTIONS", 1)
    async with raw_server(sized(b"one")) as server:
        responses = [await post(client, server) for _ in range(3)]
        for response in responses:
            assert await response.body(LIMIT) == b"one"
            response.close()
        await eventually(lambda: server.open == 1)
