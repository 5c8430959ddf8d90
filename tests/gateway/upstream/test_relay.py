"""What an event stream tells of the answer that passes through it, over both clients."""

import tracemalloc

import pytest

from gateway.upstream.relay import EventStream
from tests.gateway.raw_server import STREAM_HEAD, raw_server
from tests.gateway.upstream.clients import post

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_choices_that_may_come_cost_no_memory(client):
    async with raw_server(STREAM_HEAD) as server:
        response = await post(client, server)
        tracemalloc.start()
        stream = EventStream(response, 1_000_000)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        response.close()
    assert not stream.finished
    assert size < 10_000
