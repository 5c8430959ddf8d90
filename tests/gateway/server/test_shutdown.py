"""The worker stops: what is being answered is finished, the rest is closed."""

import asyncio

from tests.gateway.server.wire import GET, hello, post, read, reply, serving, start, write
from tests.polling import eventually


async def test_an_open_answer_is_finished_and_its_connection_closed():
    release, begun = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        await release.wait()
        await reply(send)

    async with serving(app) as served, served.client() as client:
        await client.send(GET)
        await begun.wait()
        served.server.should_exit = True
        await eventually(lambda: not served.connections[0]._open[0].keep_alive)
        release.set()
        response = await client.response()
        assert (response.body, response.all("connection")) == (b"ok", ["close"])
        assert await client.rest() == b""


async def test_an_open_stream_is_finished():
    release = asyncio.Event()

    async def app(scope, receive, send):
        await start(send)
        await write(send, b"begun", more=True)
        await release.wait()
        await write(send, b"done")

    async with serving(app) as served, served.client() as client:
        await client.send(GET)
        await client.head()
        assert await client.chunk() == b"begun"
        served.server.should_exit = True
        await eventually(lambda: not served.connections[0]._open[0].keep_alive)
        release.set()
        assert await client.rest() == b"4\r\ndone\r\n0\r\n\r\n"


async def test_an_upload_that_is_under_way_is_finished():
    begun = asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        await reply(send, await read(receive))

    async with serving(app) as served, served.client() as client:
        request = post(b"abc")
        await client.send(request[:-1])
        await begun.wait()
        served.server.should_exit = True
        await eventually(lambda: not served.connections[0]._open[0].keep_alive)
        await client.send(request[-1:])
        response = await client.response()
        assert (response.body, response.all("connection")) == (b"abc", ["close"])


async def test_idle_connections_and_half_heads_are_closed():
    async with serving(hello) as served:
        async with served.client() as used, served.client() as new, served.client() as half:
            assert (await used.ask()).status == 200
            await half.send(GET[:-2])
            await eventually(lambda: len(served.connections) == 3)
            served.server.should_exit = True
            assert [await client.rest() for client in (used, new, half)] == [b"", b"", b""]
            assert served.connections == []


async def test_requests_that_wait_are_not_begun_any_more():
    release, paths = asyncio.Event(), []

    async def app(scope, receive, send):
        paths.append(scope["path"])
        await release.wait()
        await reply(send)

    async with serving(app) as served, served.client() as client:
        await client.send(GET, b"GET /second HTTP/1.1\r\nhost: h\r\n\r\n")
        await eventually(lambda: paths)
        served.server.should_exit = True
        await eventually(lambda: not served.connections[0]._open[0].keep_alive)
        release.set()
        assert (await client.response()).all("connection") == ["close"]
        assert await client.rest() == b""
    assert paths == ["/"]


async def test_what_is_not_finished_in_time_is_cancelled():
    begun, outcomes = asyncio.Event(), []

    async def app(scope, receive, send):
        if scope["path"] == "/stream":
            await start(send)
            await write(send, b"begun", more=True)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcomes.append((scope["path"], scope["extensions"]["llmgw.exchange"].client_left))
            raise

    async with serving(app, graceful_s=0) as served, served.client() as stream, served.client() as waiting:
        await stream.send(b"GET /stream HTTP/1.1\r\nhost: h\r\n\r\n")
        await stream.head()
        await waiting.send(GET)
        await eventually(lambda: len(served.server.server_state.tasks) == 2)
        served.server.should_exit = True
        assert await stream.rest() == b"5\r\nbegun\r\n"  # a cut that shows
        assert (await waiting.response()).status == 503
        assert await waiting.rest() == b""
    assert sorted(outcomes) == [("/", False), ("/stream", False)]
