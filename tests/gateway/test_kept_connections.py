"""Engines to which the gateway has kept connections, and what becomes of a request that meets their end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.app import create_app
from tests.gateway.doors import served
from tests.gateway.raw_server import RawServer, raw_server, sized
from tests.gateway.test_openai_door import ANSWER, BODY, post, settings

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")


@asynccontextmanager
async def engine() -> AsyncIterator[RawServer]:
    """Its first request is answered; the second ends its process."""

    async def end(reader, writer):
        server.refuse()
        raise ConnectionError

    async with raw_server(sized(ANSWER), end) as server:
        yield server


@pytest.mark.parametrize("http_client", ["native", "aiohttp"])
async def test_a_request_that_ends_engines_does_not_get_to_try_all_that_were_asked_before(http_client):
    async with engine() as a, engine() as b, engine() as c:
        chosen = settings(a.url, b.url, c.url, routing_policy="round-robin", http_client=http_client)
        async with served(create_app(chosen), lifespan="on") as base:
            assert [(await post(base, BODY)).status_code for _ in range(3)] == [200] * 3
            assert [len(server.requests) for server in (a, b, c)] == [1, 1, 1]
            answer = await post(base, BODY)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
    assert sum(len(server.requests) for server in (a, b, c)) == 3 + 2
    assert sum(server.connections for server in (a, b, c)) == 3 + 1  # the second is asked over a new one


@pytest.mark.parametrize("http_client", ["native", "aiohttp"])
async def test_engines_that_go_together_are_not_ended_by_a_request(http_client):
    """As those of one machine do: who is asked over a connection that is kept may not have noticed yet."""
    machine = []

    async def end(reader, writer):
        for server in machine:
            server.refuse()
        raise ConnectionError

    async with (
        raw_server(sized(ANSWER), end) as a,
        raw_server(sized(ANSWER), end) as b,
        raw_server(sized(ANSWER)) as c,
    ):
        machine += [a, b]
        chosen = settings(a.url, b.url, c.url, routing_policy="round-robin", http_client=http_client)
        async with served(create_app(chosen), lifespan="on") as base:
            assert [(await post(base, BODY)).status_code for _ in range(3)] == [200] * 3
            answer = await post(base, BODY)
    assert (answer.status_code, answer.content) == (200, ANSWER)
    assert [len(server.requests) for server in (a, b, c)] == [2, 1, 2]
