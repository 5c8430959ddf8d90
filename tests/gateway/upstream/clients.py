"""The clients under contract, and how the tests use them."""

import asyncio
import os
from pathlib import Path

from gateway.origin import Origin
from gateway.upstream.aiohttp_client import AiohttpClient
from gateway.upstream.client import UpstreamClient, UpstreamResponse
from gateway.upstream.http1 import HttpClient
from gateway.upstream.timeouts import Timeouts
from tests.gateway.raw_server import RawServer

CLIENTS = {"own": HttpClient, "aiohttp": AiohttpClient}
# No test waits that long for anything that should happen.
PATIENT = Timeouts(connect=15.0, first_byte=15.0, first_token=15.0, idle=15.0)
STEADY = Timeouts(connect=15.0, first_byte=2.0, first_token=2.0, idle=2.0)
HASTY = Timeouts(connect=0.8, first_byte=0.8, first_token=0.8, idle=0.8)
LIMIT = 1 << 30


async def post(client: UpstreamClient, server: RawServer, body: bytes = b"{}") -> UpstreamResponse:
    return await client.post(Origin.parse(server.url), "/v1/x", {"x-test": "1"}, body)


async def fetch(client: UpstreamClient, server: RawServer, body: bytes = b"{}") -> bytes:
    response = await post(client, server, body)
    try:
        return await response.body(LIMIT)
    finally:
        response.close()


async def happens(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 15)


def open_sockets() -> int:
    """How many sockets this process holds: servers' and clients'."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue
    return count
