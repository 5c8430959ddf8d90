"""Nothing of a request outlives it, and no garbage collector is needed for that."""

import asyncio
import gc

import pytest

from gateway.server.connection import ClientConnection
from gateway.server.exchange import Exchange
from gateway.server.request_body import RequestBody
from tests.gateway.server.wire import FAREWELL, GET, chunked_head, chunks, hello, post, serving, typed_seen
from tests.polling import eventually

KINDS = (ClientConnection, Exchange, RequestBody)


def alive(*kinds: type) -> int:
    return sum(type(thing) in kinds for thing in gc.get_objects())


@pytest.fixture(autouse=True)
def others() -> None:
    """What earlier tests left behind is not counted here."""
    gc.collect()
    gc.freeze()


async def test_connections_that_were_closed_leave_nothing():
    async with serving(typed_seen) as served:
        for number in range(200):
            async with served.client() as client:
                if number % 2:
                    await client.ask(post(b"abc"))
                else:
                    await client.send(GET[: number % len(GET)])
        await eventually(lambda: not served.connections and not served.server.server_state.tasks)
        gc.collect()
        assert alive(*KINDS) == 0


async def test_uploads_that_were_broken_off_leave_nothing():
    """Also no timer that would hold them until a body's time is over."""
    async with serving(typed_seen) as served:
        for _ in range(20):
            async with served.client() as client:
                await client.send(post(b"abc")[:-1])
                await eventually(lambda: served.server.server_state.tasks)
        await eventually(lambda: not served.connections and not served.server.server_state.tasks)
        gc.collect()
        assert alive(*KINDS) == 0


async def test_requests_that_were_answered_leave_nothing():
    async with serving(typed_seen) as served, served.client() as client:
        for _ in range(1000):
            await client.ask(post(b"abc"))
            await client.ask(chunked_head() + chunks(b"abc") + b"0\r\n\r\n")
        gc.collect()
        assert alive(Exchange, RequestBody) == 0
        assert alive(ClientConnection) == 1


async def test_requests_are_freed_without_the_garbage_collector():
    async with serving(typed_seen) as served, served.client() as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(1000):
                await client.ask(post(b"abc"))
                await client.ask()
            assert alive(Exchange, RequestBody) <= 1
        finally:
            gc.enable()


async def test_pipelined_and_early_answered_requests_are_freed_without_the_garbage_collector():
    async with serving(hello) as served, served.client() as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await client.send(GET * 4 + post(b"unread"))
                for _ in range(5):
                    await client.response()
            assert alive(Exchange, RequestBody) <= 1
        finally:
            gc.enable()


async def test_requests_whose_client_left_are_freed_without_the_garbage_collector():
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async with serving(app) as served:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                async with served.client() as client:
                    await client.send(GET * 3)
                    await eventually(lambda: served.server.server_state.tasks)
            await eventually(lambda: not served.connections and not served.server.server_state.tasks)
            assert alive(Exchange, RequestBody) == 0
        finally:
            gc.enable()


async def test_closed_connections_are_freed_without_the_garbage_collector():
    async with serving(hello) as served:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                async with served.client() as client:
                    await client.ask(FAREWELL)
            await eventually(lambda: not served.connections)
            assert alive(ClientConnection) <= 1
        finally:
            gc.enable()
