"""Which replicas are asked at all, in which tiers, by which policy."""

from dataclasses import replace
from random import Random

import pytest

from gateway.errors import InvalidRequest, ReplicaUnreachable, UpstreamFailed
from gateway.metrics import Metrics
from gateway.routing.breaker import Breaker
from gateway.routing.policies import policies
from gateway.routing.replica import Load
from gateway.routing.router import Router
from gateway.routing.standing import Standing
from gateway.routing.watch import SLOW_S, SLOW_SAMPLES, leave_out_outliers
from gateway.settings import ConfigError
from tests.gateway.routing.simulation import CALLER, Clock, chat, pool, upstreams

GONE = ReplicaUnreachable("refused")
EVERY_POLICY = sorted(policies())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=EVERY_POLICY)
def router(request, clock):
    return Router(request.param, {}, Metrics(), clock)


def order(router, replicas, context=CALLER):
    members = pool(replicas)
    return list(router.order(members, members.replicas["chat"], context, chat("hello")))


def test_every_policy_orders_all_there_are(router):
    replicas = upstreams(5)
    for _ in range(20):
        ordered = order(router, replicas)
        assert sorted(one.id for one in ordered) == [one.id for one in replicas]
        router.begin(ordered[0]).first_token()


def test_one_replica_needs_no_policy(router):
    (only,) = upstreams(1)
    router.begin(only).failed(GONE)
    assert order(router, [only]) == [only]


def test_one_that_fails_is_left_out_and_has_to_be_probed_first(router, clock):
    bad, *good = upstreams(3)
    router.begin(bad).failed(GONE)
    for _ in range(20):
        assert bad not in order(router, [bad, *good])
    clock.now = router.standing(bad).breaker.until
    ordered = order(router, [bad, *good])
    assert ordered[0] == bad
    assert len(ordered) == 3, "the others are behind it"
    probe = router.begin(bad)
    assert bad not in order(router, [bad, *good])
    probe.ended(1)
    assert bad in order(router, [bad, *good])


def test_with_nothing_else_left_they_are_asked_all_the_same(router, clock):
    first, second = upstreams(2)
    router.begin(first).failed(GONE)
    clock.now += 0.5
    router.begin(second).failed(GONE)
    assert order(router, [first, second]) == [first, second]
    clock.now += 60
    assert set(order(router, [first, second])) == {first, second}


def test_a_higher_priority_number_comes_behind_and_alone_when_no_lower_one_can_be_asked(router, clock):
    lower, higher = upstreams(2), [replace(one, id=f"{one.id}-b", priority=1) for one in upstreams(2)]
    for _ in range(20):
        ordered = order(router, [*higher, *lower])
        assert set(ordered[:2]) == set(lower)
        assert set(ordered[2:]) == set(higher)
    for replica in lower:
        router.begin(replica).failed(GONE)
    assert set(order(router, [*higher, *lower])) == set(higher)


def test_what_a_replica_would_only_queue_goes_where_there_is_room(router):
    first, second = (replace(one, max_concurrency=2) for one in upstreams(2))
    reserve = replace(first, id="reserve", priority=1)
    pool_, asked = [first, second, reserve], []
    for _ in range(8):
        asked.append(order(router, pool_)[0])
        router.begin(asked[-1])
    # Each as much as it works on, and the reserve when the others are full; then as if none were.
    assert sorted(one.id for one in asked[:4]) == sorted([first.id, second.id] * 2)
    assert asked[4:6] == [reserve, reserve]
    assert reserve not in asked[6:]


def test_places_that_others_have_taken_count(router):
    idle, busy = upstreams(2)
    busy = replace(busy, max_concurrency=4, load=Load(requests=4, measured_at=1.0))
    assert {order(router, [idle, busy])[0] for _ in range(20)} == {idle}


def test_a_reserve_that_failed_is_not_probed_while_it_is_not_needed(router, clock):
    lower, (reserve,) = upstreams(2), [replace(upstreams(1)[0], id="reserve", priority=1)]
    router.begin(reserve).failed(GONE)
    clock.now += 60
    assert reserve not in order(router, [*lower, reserve])
    for replica in lower:
        router.begin(replica).failed(GONE)
    assert order(router, [*lower, reserve])[0] == reserve


def test_the_operator_chooses_by_model_and_a_request_for_itself(clock):
    replicas = upstreams(2)
    router = Router("affinity", {"m": "round-robin"}, Metrics(), clock)
    in_turns = [order(router, replicas)[0] for _ in range(4)]
    assert in_turns == [*replicas, *replicas]
    stays = [order(router, replicas, replace(CALLER, policy="affinity"))[0] for _ in range(10)]
    assert len(set(stays)) == 1
    for members in (replicas, replicas[:1]):
        with pytest.raises(InvalidRequest, match="no routing policy 'fastest', only affinity, balanced, round-robin"):
            order(router, members, replace(CALLER, policy="fastest"))


def test_round_robin_takes_turns_within_each_priority(clock):
    lower, higher = upstreams(2), [replace(one, id=f"{one.id}-b", priority=1) for one in upstreams(2)]
    router = Router("round-robin", {}, Metrics(), clock)
    orders = [order(router, [*lower, *higher]) for _ in range(4)]
    assert [ordered[0] for ordered in orders] == [*lower, *lower]
    assert [ordered[2] for ordered in orders] == [*higher, *higher]


@pytest.mark.parametrize(("default", "by_model"), [("best", {}), ("affinity", {"m": "best"})])
def test_a_policy_that_there_is_not_stops_the_start(default, by_model):
    with pytest.raises(ConfigError, match="no routing policy 'best', only affinity, balanced, round-robin"):
        Router(default, by_model, Metrics())


def test_replicas_that_are_gone_are_forgotten_once_nothing_runs_there(clock):
    metrics = Metrics()
    router = Router("balanced", {}, metrics, clock)
    first, second = upstreams(2)
    running, other = router.begin(first), router.begin(second)
    router.begin(first).failed(GONE)
    assert b'llmgw_replicas_left_out{model="m"} 1.0' in metrics.render()
    router.keep({second.id})
    assert set(router.standings) == {first.id, second.id}
    running.failed(UpstreamFailed("cut"))
    other.ended(1)
    router.keep({second.id})
    assert set(router.standings) == {second.id}
    assert not router.left_out
    assert b'llmgw_replicas_left_out{model="m"} 0.0' in metrics.render()


def measured(*ttft_s: float, samples: int = SLOW_SAMPLES) -> list[Standing]:
    standings = [Standing(replica, Breaker(Random(1))) for replica in upstreams(len(ttft_s))]
    for standing, seconds in zip(standings, ttft_s, strict=True):
        for _ in range(samples):
            standing.first_token_took(seconds, 1, 0.0)
    return standings


@pytest.mark.parametrize(
    ("ttft_s", "left_out"),
    [
        ((0.2, 0.2, 5.0), [False, False, True]),
        ((0.2, 5.0), [False, False]),
        ((0.2, 0.3, 0.2, 1.9), [False] * 4),
        ((0.01, 0.01, SLOW_S), [False] * 3),
        ((0.2, 0.2, 5.0, 9.0, 7.0), [False] * 5),  # then these are how it is
        ((0.2, 0.2, 0.2, 9.0, 8.0), [False, False, False, True, True]),
        ((0.2, 0.2, 0.2, 0.2, 0.2, 9.0, 8.0, 7.0), [False] * 5 + [True] * 3),
        ((5.0,), [False]),
    ],
)
def test_slow_outliers_are_left_out_but_never_more_than_half(ttft_s, left_out):
    standings = measured(*ttft_s)
    leave_out_outliers(standings, 100.0)
    assert [not standing.breaker.closed for standing in standings] == left_out
    assert all(standing.samples == 0 for standing in standings if not standing.breaker.closed)


def test_a_few_slow_answers_make_no_outlier():
    standings = measured(0.2, 0.2, 9.0, samples=SLOW_SAMPLES - 1)
    leave_out_outliers(standings, 100.0)
    assert all(standing.breaker.closed for standing in standings)


def test_a_slow_kind_is_no_outlier():
    standings = measured(0.2, 0.2, 9.0)
    slow = standings[2]
    slow.replica = replace(slow.replica, revision="on a CPU")
    leave_out_outliers(standings, 100.0)
    assert slow.breaker.closed


def test_those_that_fail_count_for_the_half():
    standings = measured(0.2, 0.2, 0.2, 9.0)
    for standing in standings[:2]:
        standing.breaker.open(100.0)
    leave_out_outliers(standings, 100.0)
    assert standings[3].breaker.closed
