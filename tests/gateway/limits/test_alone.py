"""Limits while Redis does not count: each worker grants its share, and goes back by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RateLimited
from gateway.limits import requests
from gateway.limits.requests import RequestLimits
from gateway.limits.window import SECOND_NS, Window, Windows
from gateway.metrics import Metrics
from gateway.redis_link import RedisLink
from tests.gateway.limits.clocks import SECOND_US, clock_of_workers
from tests.gateway.limits.limits import Worker, caller, granted
from tests.gateway.limits.links import pid_of, stopped
from tests.polling import eventually


@pytest.fixture
def news(caplog):
    """Every line the limits log, as its level and what stands before the reason."""
    caplog.set_level("INFO", requests.__name__)
    return lambda: [
        (record.levelname, record.getMessage().partition(" (")[0])
        for record in caplog.records
        if record.name == requests.__name__
    ]


ALONE = ("WARNING", "request limits are counted per worker")
TOGETHER = ("INFO", "request limits are counted in Redis")


def worker_without_redis(workers: int) -> Worker:
    """Its link never runs."""
    metrics = Metrics()
    return Worker(RequestLimits(RedisLink("unix:///nowhere"), workers, metrics), metrics)


@pytest.mark.parametrize(
    ("limit", "workers", "share"),
    [(10, 1, 10), (10, 2, 5), (3, 2, 1), (1, 4, 1), (4, 4, 1), (100, 3, 33), (7, 1, 7), (1, 256, 1)],
)
async def test_each_worker_grants_its_share_and_at_least_one(clock, limit, workers, share):
    worker = worker_without_redis(workers)
    assert await worker.granted(caller(limit), limit + 20) == share
    assert worker.alone == limit + 20


async def test_its_share_comes_back_with_time(clock):
    worker = worker_without_redis(2)
    assert await worker.granted(caller(6), 1) == 1
    for seconds, expected in ((1, 2), (59.999, 0), (0.001, 1), (0.999, 0), (0.001, 2), (3600, 3), (0, 0)):
        await clock.passes(seconds * SECOND_US)
        assert await worker.granted(caller(6), 20) == expected, seconds


async def test_a_limit_smaller_than_the_number_of_workers_is_kept_over_time(clock):
    workers = [worker_without_redis(4).limits for _ in range(4)]
    got = await granted(workers, caller(2), 3)
    for _ in range(600):
        await clock.passes(SECOND_US)
        got += await granted(workers, caller(2), 1)
    assert 0.95 * 20 <= got <= 4 + 20  # one each at first, then two a minute


@given(
    workers=st.integers(1, 5),
    limit=st.integers(5, 50),
    steps=st.lists(st.tuples(st.floats(0, 90), st.integers(0, 30)), min_size=1, max_size=5),
)
async def test_all_workers_together_never_grant_more_than_the_limit(workers, limit, steps):
    with pytest.MonkeyPatch.context() as patched:
        clock, got = clock_of_workers(patched), []
        everyone = [worker_without_redis(workers).limits for _ in range(workers)]
        for seconds, asked in steps:
            await clock.passes(seconds * SECOND_US)
            got.append((clock.us, await granted(everyone, caller(limit), asked)))
    for last, _ in got:
        assert sum(count for at, count in got if last - 60 * SECOND_US <= at <= last) <= limit


async def test_a_worker_forgets_whose_window_has_emptied_and_nobody_before(clock):
    made = []
    windows = Windows(lambda name: made.append(name) or Window(1, 1), 100 * SECOND_NS)
    windows["idle"], windows["busy"]
    for second in range(0, 1000, 10):
        await clock.passes(10 * SECOND_US)
        windows["busy"], windows[f"new-{second}"]
        if second == 90:
            windows["idle"]  # within its time
            assert made.count("idle") == 1
    assert made.count("busy") == 1
    assert len(windows) <= 12
    windows["idle"]
    assert made.count("idle") == 2


async def test_one_of_a_limit_smaller_than_the_workers_is_not_forgotten_too_early(clock):
    worker, got = worker_without_redis(2), []
    for seconds in (0, 121, 1, 60, 60, 1, 1):
        await clock.passes(seconds * SECOND_US)
        await worker.granted(caller(6, "team", f"{clock.us}"), 1)
        got.append(await worker.granted(caller(1), 1))
    assert got == [1, 0, 1, 0, 0, 0, 1]


async def test_callers_do_not_share(clock):
    worker = worker_without_redis(1)
    assert await worker.granted(caller(1, "one"), 2) == 1
    assert await worker.granted(caller(1, "other"), 2) == 1
    assert await worker.granted(caller(None), 50) == 50
    assert worker.alone == 4


async def test_a_refusal_alone_looks_like_any_other(clock):
    worker = worker_without_redis(2)
    assert await worker.granted(caller(4), 2) == 2
    with pytest.raises(RateLimited, match="4 requests per minute") as refused:
        await worker.limits.admit(caller(4))
    assert refused.value.headers["x-ratelimit-limit-requests"] == "4"
    assert refused.value.headers["retry-after-ms"] == "61000"
    await clock.passes(61 * SECOND_US)
    await worker.limits.admit(caller(4))


async def test_a_gateway_without_redis_counts_nothing_as_alone(news):
    metrics = Metrics()
    worker = Worker(RequestLimits(None, 2, metrics), metrics)
    assert await worker.granted(caller(4), 10) == 2
    assert (worker.alone, news()) == (0, [])


async def test_one_line_is_logged_however_many_ask(news):
    await worker_without_redis(2).granted(caller(4), 100)
    assert news() == [ALONE]


async def counts_in_redis(worker: Worker) -> bool:
    """Whether a request of somebody else was judged by Redis."""
    before = worker.alone
    await worker.limits.admit(caller(10**6, "somebody", "else"))
    return worker.alone == before


async def test_killed_and_started_again(redis_server, worker, redis, news):
    assert await worker.granted(caller(6), 4) == 4
    redis_server.kill()
    assert await worker.granted(caller(6), 20) == 3  # of two workers' six
    assert worker.alone == 20
    redis_server.start()
    await eventually(lambda: counts_in_redis(worker))
    alone = worker.alone
    assert await worker.granted(caller(6), 20) == 6  # an empty Redis
    assert worker.alone == alone
    assert news() == [ALONE, TOGETHER]


async def test_a_redis_that_stands_still(hasty, worker, redis, news):
    await worker.granted(caller(6), 1)
    with stopped(await pid_of(redis)) as go_on:
        assert await worker.granted(caller(6), 20) == 3
        assert await worker.granted(caller(6), 20) == 0
        assert worker.alone == 40
        go_on()
        await eventually(lambda: counts_in_redis(worker))
    assert news() == [ALONE, TOGETHER]


FAULTS = {
    "read-only replica": ("READONLY", ["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    "scripts are not allowed": (
        "NOPERM",
        ["ACL", "SETUSER", "default", "-@scripting"],
        ["ACL", "SETUSER", "default", "+@all"],
    ),
    "no writes": (
        "NOREPLICAS",
        ["CONFIG", "SET", "min-replicas-to-write", "1"],
        ["CONFIG", "SET", "min-replicas-to-write", "0"],
    ),
}


@pytest.mark.parametrize("known", [False, True], ids=["script new", "script known"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_redis_that_answers_but_does_not_count(worker, redis, news, caplog, fault, known):
    words, begin, end = FAULTS[fault]
    if known:
        await worker.granted(caller(6, "first"), 1)
    await redis.execute_command(*begin)
    assert await worker.granted(caller(6), 20) == 3
    assert worker.alone == 20
    await redis.execute_command(*end)
    await eventually(lambda: counts_in_redis(worker))  # a replica's connection is given up
    alone = worker.alone
    assert await worker.granted(caller(6), 20) == 6
    assert worker.alone == alone
    assert news() == [ALONE, TOGETHER]
    assert words in caplog.text


async def test_a_full_redis_still_counts(worker, redis, news):
    await redis.config_set("maxmemory", 1)
    assert await worker.granted(caller(6), 20) == 6
    assert (worker.alone, news()) == (0, [])


async def test_a_window_that_is_none(worker, redis):
    await worker.granted(caller(6), 1)
    (window,) = await redis.keys()
    await redis.delete(window)
    await redis.rpush(window, "not a number")
    assert await worker.granted(caller(6), 20) == 3


async def test_the_clock_of_the_machine_is_asked_only_when_alone(worker, monkeypatch):
    monkeypatch.setattr(requests, "monotonic_ns", None)
    assert await worker.granted(caller(6), 20) == 6
