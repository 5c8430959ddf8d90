"""Clients that leave: what they asked for ends at once, and quietly."""

import asyncio
import gc

import pytest

from tests.gateway.server.wire import GET, chunked_head, chunks, post, read, reply, serving, start, write
from tests.polling import eventually

WAYS = ["reset", "close"]


async def leave(client, way: str) -> None:
    if way == "reset":
        client.leave()
    else:
        client.writer.close()


class Watched:
    """An application that waits in a place of the test's choice, and says how it ended."""

    def __init__(self, wait_in) -> None:
        self.begun, self.ended, self.outcome = asyncio.Event(), asyncio.Event(), "not run"
        self._wait_in = wait_in

    async def __call__(self, scope, receive, send):
        try:
            await self._wait_in(scope, receive, send, self.begun)
            self.outcome = "whole"
        except BaseException as error:
            self.outcome = type(error).__name__
            raise
        finally:
            self.ended.set()

    async def over(self) -> str:
        async with asyncio.timeout(5):
            await self.ended.wait()
        return self.outcome


async def before_reading(scope, receive, send, begun):
    begun.set()
    await asyncio.Event().wait()


async def before_the_answer(scope, receive, send, begun):
    await read(receive)
    begun.set()
    await asyncio.Event().wait()


async def listening(scope, receive, send, begun):
    await read(receive)
    begun.set()
    await receive()


async def within_a_stream(scope, receive, send, begun):
    await read(receive)
    await start(send)
    await write(send, b"begun", more=True)
    begun.set()
    await asyncio.Event().wait()


async def writing(scope, receive, send, begun):
    await read(receive)
    await start(send)
    begun.set()
    while True:
        await write(send, b"x" * 1000, more=True)
        await asyncio.sleep(0)


async def held_up_by_the_reader(scope, receive, send, begun):
    await read(receive)
    await start(send)
    asyncio.get_running_loop().call_later(0.3, begun.set)
    while True:
        await write(send, b"x" * 65536, more=True)


@pytest.mark.parametrize(
    "place", [before_reading, before_the_answer, listening, within_a_stream, writing, held_up_by_the_reader]
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 10, 40_000])
async def test_a_client_that_leaves_ends_its_request(place, way, size):
    app = Watched(place)
    async with serving(app) as served, served.client(receive_buffer=65536) as client:
        await client.send(post(b"x" * size))
        await app.begun.wait()
        await leave(client, way)
        assert await app.over() == "CancelledError"
        await eventually(lambda: not served.connections)
        await eventually(lambda: not served.server.server_state.tasks)
    gc.collect()


@pytest.mark.parametrize("size", [70_000, 100_000, 200_000])
@pytest.mark.parametrize("place", [before_the_answer, within_a_stream])
async def test_a_client_that_leaves_after_a_large_body_ends_its_request(place, size):
    app = Watched(place)
    async with serving(app, graceful_s=0) as served, served.client() as client:
        await client.send(post(b"x" * size))
        await app.begun.wait()
        client.leave()
        assert await app.over() == "CancelledError"


@pytest.mark.parametrize("begin", [post(b"abc")[:-1], chunked_head(), chunked_head() + chunks(b"abc")])
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_during_its_upload_ends_its_request(begin, way):
    begun = asyncio.Event()

    async def uploading(scope, receive, send, _):
        begun.set()
        await read(receive)

    app = Watched(uploading)
    async with serving(app) as served, served.client() as client:
        await client.send(begin)
        await begun.wait()
        await leave(client, way)
        assert await app.over() == "CancelledError"


@pytest.mark.parametrize("way", WAYS)
async def test_requests_behind_the_one_that_is_answered_are_never_begun(way):
    paths = []

    async def app(scope, receive, send):
        paths.append(scope["path"])
        await asyncio.Event().wait()

    async with serving(app) as served, served.client() as client:
        await client.send(b"GET /0 HTTP/1.1\r\nhost: h\r\n\r\n", b"GET /1 HTTP/1.1\r\nhost: h\r\n\r\n")
        await eventually(lambda: paths)
        await leave(client, way)
        await eventually(lambda: not served.connections and not served.server.server_state.tasks)
    assert paths == ["/0"]


async def test_a_request_whose_client_is_gone_already_ends_quietly():
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async with serving(app) as served:
        for _ in range(50):
            async with served.client() as client:
                client.writer.write(GET)
        await eventually(lambda: not served.connections and not served.server.server_state.tasks)
        gc.collect()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", [b"x: y", b"connection: close"])
async def test_what_the_application_does_after_its_answer_is_not_cancelled(way, field):
    go_on, outcome = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        try:
            await reply(send)
            await go_on.wait()
            outcome.set_result("whole")
        except BaseException as error:
            outcome.set_result(type(error).__name__)
            raise

    async with serving(app) as served, served.client() as client:
        assert (await client.ask(b"GET / HTTP/1.1\r\nhost: h\r\n" + field + b"\r\n\r\n")).body == b"ok"
        await leave(client, way)
        await eventually(lambda: not served.connections)
        go_on.set()
        assert await outcome == "whole"


async def test_a_connection_goes_on_while_the_application_still_cleans_up():
    release, cleaned = asyncio.Event(), []

    async def app(scope, receive, send):
        await reply(send, scope["path"].encode())
        if scope["path"] == "/first":
            await release.wait()
        cleaned.append(scope["path"])

    async with serving(app) as served, served.client() as client:
        assert (await client.ask(b"GET /first HTTP/1.1\r\nhost: h\r\n\r\n")).body == b"/first"
        assert (await client.ask()).body == b"/"
        release.set()
        await eventually(lambda: cleaned == ["/", "/first"])


@pytest.mark.parametrize("last_words", ["send", "raise", "receive"])
async def test_last_words_to_a_client_that_left_reach_nobody(last_words):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if last_words == "raise":
                raise RuntimeError("while it was cancelled") from None
            if last_words == "receive":
                assert await read(receive) == b""
                assert await receive() == {"type": "http.disconnect"}
            await reply(send, b"nobody reads this")
        finally:
            ended.set()

    async with serving(app) as served, served.client() as client:
        await client.send(GET)
        await begun.wait()
        client.leave()
        await ended.wait()
        await eventually(lambda: not served.server.server_state.tasks)


async def test_the_extension_tells_that_the_client_left():
    told, begun = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def app(scope, receive, send):
        exchange = scope["extensions"]["llmgw.exchange"]
        assert not exchange.client_left
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.set_result(exchange.client_left)

    async with serving(app) as served, served.client() as client:
        await client.send(GET)
        await begun.wait()
        client.leave()
        assert await told is True


async def test_an_application_that_is_cancelled_is_not_asked_to_serve_others():
    """One client's leaving touches nobody else's request."""
    release, begun = asyncio.Event(), 0

    async def app(scope, receive, send):
        nonlocal begun
        begun += 1
        await release.wait()
        await reply(send)

    async with serving(app) as served, served.client() as one, served.client() as other:
        await one.send(GET)
        await other.send(GET)
        await eventually(lambda: begun == 2)
        one.leave()
        await eventually(lambda: len(served.connections) == 1)
        release.set()
        assert (await other.response()).body == b"ok"


async def test_a_client_that_closes_its_side_after_the_request_has_left():
    """Half-closed is gone: no client of this gateway works so, and a proxy's leaving looks the same."""
    app = Watched(before_the_answer)
    async with serving(app) as served, served.client() as client:
        await client.send(GET)
        await app.begun.wait()
        client.writer.write_eof()
        assert await app.over() == "CancelledError"
        assert await client.rest() == b""


async def test_a_half_closed_client_gets_what_was_written():
    async def app(scope, receive, send):
        await reply(send)

    async with serving(app) as served, served.client() as client:
        assert (await client.ask()).body == b"ok"
        client.writer.write_eof()
        assert await client.rest() == b""
        await eventually(lambda: not served.connections)
