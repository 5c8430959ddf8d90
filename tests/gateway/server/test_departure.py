"""Clients that leave while their connection is not read, since a large body waits behind the request being answered."""

import asyncio

import pytest

from tests.gateway.server.test_disconnects import WAYS, Watched, before_the_answer, leave, within_a_stream
from tests.gateway.server.wire import A_WHILE_S, post, read, reply, serving
from tests.polling import eventually


@pytest.mark.parametrize("place", [before_the_answer, within_a_stream])
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_behind_a_pipelined_upload_ends_its_request(place, way):
    app = Watched(place)
    async with serving(app, graceful_s=0, head_s=0.2) as served, served.client() as client:
        await client.send(post(b"x"))
        await app.begun.wait()
        await client.send(post(b"y" * 200_000))
        await asyncio.sleep(A_WHILE_S)
        await leave(client, way)
        assert await app.over() == "CancelledError"
        await eventually(lambda: not served.connections)


async def test_a_client_that_stays_behind_a_pipelined_upload_gets_its_answers():
    begun, release = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        body = await read(receive)
        begun.set()
        await release.wait()
        await reply(send, b"%d" % len(body))

    async with serving(app, head_s=0.1) as served, served.client() as client:
        await client.send(post(b"x"))
        await begun.wait()
        await client.send(post(b"y" * 200_000))
        await asyncio.sleep(0.3)
        release.set()
        assert [(await client.response()).body for _ in range(2)] == [b"1", b"200000"]
