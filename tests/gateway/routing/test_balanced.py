"""The balanced policy on simulated replicas: each gets the share that it can carry."""

from dataclasses import replace
from random import Random

import pytest

from gateway.routing.replica import Load
from gateway.routing.standing import HALF_LIFE_S
from tests.gateway.routing.simulation import CALLER, Clock, Simulation, chat, pool, router, upstreams


def simulation(*service_s: float, policy: str = "balanced", seed: int = 1, **fields: object) -> Simulation:
    clock = Clock()
    return Simulation(router(policy, clock, seed), clock, upstreams(len(service_s), **fields), list(service_s))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("times_slower", [2, 5, 20])
def test_a_fast_and_a_slow_replica_under_load_get_shares_by_their_speed(times_slower, seed):
    busy = simulation(0.1, 0.1 * times_slower, seed=seed)
    busy.keep_busy(requests=60, answers=2000)
    # Requests that are open at the slow one are a part of its share, too.
    assert busy.answered[0] / busy.answered[1] == pytest.approx(times_slower, rel=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_four_of_two_kinds_share_alike_within_a_kind(seed):
    busy = simulation(0.1, 0.1, 0.4, 0.4, seed=seed)
    busy.keep_busy(requests=80, answers=4000)
    fast, slow = busy.answered[0] + busy.answered[1], busy.answered[2] + busy.answered[3]
    assert fast / slow == pytest.approx(4, rel=0.3)
    assert busy.answered[0] / busy.answered[1] == pytest.approx(1, rel=0.15)


def test_requests_wait_far_less_than_in_turns():
    """Below capacity, but half of the requests are more than the slow one can take."""
    waits = {}
    for policy in ("balanced", "round-robin"):
        open_ = simulation(0.1, 1.0, policy=policy)
        open_.arrivals(per_s=7, number=2000, random=Random(3))
        waits[policy] = sum(open_.waits) / len(open_.waits)
    assert waits["balanced"] < 1.0
    assert waits["round-robin"] > 20 * waits["balanced"]


def test_an_idle_pool_takes_its_fast_replica():
    calm = simulation(0.1, 2.0)
    for _ in range(200):
        calm.ask()
        calm.until(calm.clock.now + 0.5)
    assert calm.answered[0] > 190
    assert calm.answered[1] > 0, "it is tried, else nobody would know"


def test_a_new_replica_is_tried_by_one_request_at_a_time():
    burst = simulation(0.1, 60.0)
    burst.ask()
    burst.step()
    places = [burst.ask() for _ in range(30)]
    assert places.count(1) == 1


def test_a_replica_that_was_slow_is_tried_again_and_gets_its_share_back():
    pair = simulation(0.1, 0.1)
    pair.keep_busy(requests=10, answers=200)
    pair.service_s[1] = 3.0
    pair.keep_busy(requests=0, answers=400)
    before = pair.answered.copy()
    pair.keep_busy(requests=0, answers=200)
    slow = pair.answered - before
    assert slow[1] < 0.1 * slow[0]
    pair.service_s[1] = 0.1
    pair.until(pair.clock.now + 60)
    # One at a time, so that the fast one is always free and only time speaks for the other.
    pair.keep_busy(requests=1, answers=int(8 * HALF_LIFE_S / 0.1))
    before = pair.answered.copy()
    pair.keep_busy(requests=10, answers=300)
    well = pair.answered - before
    assert well[0] / well[1] == pytest.approx(1, rel=0.3)


def test_among_equals_the_weight_decides():
    clock = Clock()
    heavy, light = upstreams(2)
    pair = Simulation(router("balanced", clock), clock, [replace(heavy, weight=3.0), light], [0.1, 0.1])
    # Nothing waits, so that their speed does not depend on their share.
    for standing in map(pair.router.standing, pair.replicas):
        standing.first_token_took(0.1, 1, clock.now)
    attempts = [
        pair.router.begin(pair.router.order(pool(pair.replicas), pair.replicas, CALLER, chat("x"))[0])
        for _ in range(400)
    ]
    assert len(attempts) == 400
    in_flight = [pair.router.standing(replica).in_flight for replica in pair.replicas]
    assert in_flight[0] / in_flight[1] == pytest.approx(3, rel=0.05)


def test_of_whole_answers_that_end_together_one_is_measured():
    clock = Clock()
    (one,) = upstreams(1)
    made = router("balanced", clock)

    def answer(tokens: int | None, ends_after_s: float) -> int:
        attempt = made.begin(one)
        clock.now += ends_after_s
        attempt.ended(tokens)
        return made.standing(one).samples

    assert [answer(20, after) for after in (0.5, 0.001, 0.001, 0.02)] == [1, 1, 1, 2]
    assert answer(None, 0.5) == 2, "nobody has counted its tokens"
    assert made.standing(one).in_flight == 0


def test_what_others_send_counts_and_a_worker_knows_its_own_better():
    clock = Clock()
    one, other = upstreams(2)
    made = router("balanced", clock)
    attempts = [made.begin(one) for _ in range(5)]
    told = replace(one, load=Load(requests=8, measured_at=1.0))
    assert made.standing(told).load == 8
    for attempt in attempts:
        attempt.abandoned()
    assert made.standing(told).load == 3
    assert made.standing(replace(told)).load == 3, "the same reading, read again"
    assert made.standing(replace(one, load=Load(requests=1, measured_at=2.0))).load == 1
    for standing in (made.standing(told), made.standing(other)):
        standing.first_token_took(0.1, 1, clock.now)
    busy = replace(one, load=Load(requests=9, measured_at=3.0))
    assert {made.order(pool([busy, other]), [busy, other], CALLER, chat("x"))[0] for _ in range(20)} == {other}


def test_a_full_cache_counts_like_twice_the_requests():
    clock = Clock()
    one, other = (
        replace(replica, load=Load(requests, kv_cache, 1.0))
        for replica, requests, kv_cache in zip(upstreams(2), (4, 6), (0.95, 0.5), strict=True)
    )
    made = router("balanced", clock)
    for replica in (one, other):
        made.standing(replica).first_token_took(0.5, 5, clock.now)
    assert {made.order(pool([one, other]), [one, other], CALLER, chat("x"))[0] for _ in range(20)} == {other}
