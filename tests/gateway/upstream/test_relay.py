"""What an event stream tells of the answer that passes through it, over both clients."""

import tracemalloc

import pytest

from gateway.upstream.relay import EventStream
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, in_pieces, raw_server, token
from tests.gateway.upstream.clients import post

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS = [*(token(str(number)) for number in range(20)), token("", "stop")]
TOGETHER = b"".join(EVENTS)


@pytest.mark.parametrize(
    "parts",
    [EVENTS, [TOGETHER], [b": ping\n\n", TOGETHER], [TOGETHER[:333], TOGETHER[333:]]],
    ids=["apart", "together", "with a ping", "cut in the middle of one"],
)
async def test_events_are_counted_however_they_arrive(client, parts):
    async with raw_server(in_pieces(STREAM_HEAD, *map(chunk, parts), END)) as server:
        response = await post(client, server)
        stream = EventStream(response, 1)
        while await stream.read():
            pass
        response.close()
    assert stream.events == len(EVENTS)


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
