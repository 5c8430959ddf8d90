"""What `gateway.upstream.client` promises of time, kept by both clients; `Timeouts` of one request are its own."""

import asyncio
from dataclasses import replace

import pytest

from gateway.errors import DeadlineExceeded
from gateway.origin import Origin
from gateway.upstream.client import UpstreamClient
from tests.gateway.raw_server import END, STREAM_HEAD, RawServer, chunk, raw_server
from tests.gateway.upstream.clients import LIMIT, PATIENT, happens

pytestmark = pytest.mark.asyncio(loop_scope="module")


# What would let a test hang, if the bound that it is about were not looked at.
NEVER_S = 3600.0


async def fetch(client: UpstreamClient, server: RawServer, until: float = float("inf"), **bounds: float) -> bytes:
    timeouts = replace(PATIENT, **{"first_byte": NEVER_S, "idle": NEVER_S} | bounds)
    response = await client.post(Origin.parse(server.url), "/v1/x", {}, b"{}", timeouts, until)
    try:
        return await response.body(LIMIT)
    finally:
        response.close()


async def late_second_part(reader, writer):
    writer.write(STREAM_HEAD + chunk(b"one"))
    await writer.drain()
    await asyncio.sleep(0.6)
    writer.write(chunk(b"two") + END)


async def drip(reader, writer):
    writer.write(STREAM_HEAD)
    while not writer.is_closing():
        writer.write(chunk(b"x"))
        await writer.drain()
        await asyncio.sleep(0.02)
    raise ConnectionError


async def test_a_head_without_a_body_is_no_first_token(client):
    async with raw_server(STREAM_HEAD) as server:
        with pytest.raises(DeadlineExceeded):
            await fetch(client, server, first_token=0.3)
        await happens(server.cut)


@pytest.mark.parametrize("bound", ["first_byte", "first_token"])
async def test_without_a_first_byte_there_is_no_first_token_either(client, bound):
    async with raw_server(b"") as server:
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(fetch(client, server, **{"first_token": NEVER_S, bound: 0.3}), 15)
        await happens(server.cut)


async def test_the_first_token_may_take_longer_than_what_follows(client):
    async def slow_prefill(reader, writer):
        writer.write(STREAM_HEAD)
        await writer.drain()
        await asyncio.sleep(0.6)
        writer.write(chunk(b"one") + END)

    async with raw_server(slow_prefill) as server:
        assert await fetch(client, server, idle=0.3) == b"one"


async def test_what_follows_may_take_longer_than_the_first_token(client):
    async with raw_server(late_second_part) as server:
        assert await fetch(client, server, first_byte=0.3, first_token=0.3) == b"onetwo"


async def test_a_stall_after_the_first_token_runs_into_its_deadline(client):
    async with raw_server(STREAM_HEAD + chunk(b"one")) as server:
        with pytest.raises(DeadlineExceeded):
            await fetch(client, server, idle=0.3)
        await happens(server.cut)


@pytest.mark.parametrize("answer", [b"", STREAM_HEAD, drip], ids=["nothing", "a head", "an endless answer"])
async def test_a_deadline_ends_it_whatever_comes(client, answer):
    async with raw_server(answer) as server:
        with pytest.raises(DeadlineExceeded):
            await fetch(client, server, until=asyncio.get_running_loop().time() + 0.3)
        await happens(server.cut)


@pytest.mark.parametrize(
    ("answer", "bound"),
    [(b"", "first_byte"), (STREAM_HEAD, "first_token"), (STREAM_HEAD + chunk(b"one"), "idle")],
    ids=["nothing", "a head", "a part"],
)
async def test_a_kept_connection_gets_the_bounds_of_its_next_request(client, answer, bound):
    async with raw_server(STREAM_HEAD + chunk(b"one") + END, answer) as server:
        assert await fetch(client, server, first_token=NEVER_S) == b"one"
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(fetch(client, server, **{"first_token": NEVER_S, bound: 0.3}), 15)
        assert server.connections == 1
