"""Every test of this package runs on both upstream clients, and on asyncio's loop as well as on the served one."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import uvloop

from gateway.upstream.client import UpstreamClient
from tests.gateway.upstream.clients import CLIENTS, HASTY, PATIENT, STEADY


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a server does, the loop never has to report an error that nobody handled."""
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.name == "asyncio" and r.levelname == "ERROR"] == []


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def built(kind: str) -> UpstreamClient:
    """A client made where no loop runs: a worker is forked after that."""
    return CLIENTS[kind](PATIENT)


@pytest_asyncio.fixture(loop_scope="module")
async def client(built: UpstreamClient) -> AsyncIterator[UpstreamClient]:
    yield built
    await built.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def hasty(kind: str) -> AsyncIterator[UpstreamClient]:
    """A client that soon loses its patience."""
    client = CLIENTS[kind](HASTY)
    yield client
    await client.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def steady(kind: str) -> AsyncIterator[UpstreamClient]:
    """A client that waits long enough for whatever is sent at all."""
    client = CLIENTS[kind](STEADY)
    yield client
    await client.aclose()
