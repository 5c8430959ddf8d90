import pytest

from gateway import redis_channel, redis_link
from gateway.limits.requests import RequestLimits
from gateway.metrics import Metrics
from tests.gateway.limits.clocks import clock_of_redis, clock_of_workers
from tests.gateway.limits.limits import Worker
from tests.gateway.limits.links import is_up, linked
from tests.polling import eventually


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No busy machine shall take a Redis that is there for one that is late."""
    monkeypatch.setattr(redis_channel, "TIMEOUT_S", 10.0)
    monkeypatch.setattr(redis_channel, "STALLED_S", 20.0)
    monkeypatch.setattr(redis_link, "CONNECT_S", 10.0)
    monkeypatch.setattr(redis_link, "RECONNECT_S", 0.05)


@pytest.fixture
async def redis(redis):
    await eventually(lambda: is_up(redis))
    return redis


@pytest.fixture
def hasty(patient, monkeypatch):
    """For tests of a Redis that is late; it has to come before the link."""
    monkeypatch.setattr(redis_channel, "TIMEOUT_S", 0.3)


@pytest.fixture
async def worker(redis_server):
    """The limits of one worker, connected to Redis."""
    async with linked(redis_server.url) as link:
        metrics = Metrics()
        yield Worker(RequestLimits(link, 2, metrics), metrics)


@pytest.fixture
async def colleague(redis_server):
    """Another worker of the same gateway."""
    async with linked(redis_server.url) as link:
        metrics = Metrics()
        yield Worker(RequestLimits(link, 2, metrics), metrics)


@pytest.fixture
async def redis_clock(redis, monkeypatch):
    """Redis' own, as the limits see it."""
    return await clock_of_redis(redis, monkeypatch)


@pytest.fixture
def clock(monkeypatch):
    """That of workers that count alone."""
    return clock_of_workers(monkeypatch)
