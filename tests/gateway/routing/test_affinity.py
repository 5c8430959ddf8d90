"""The affinity policy: what begins alike stays together, while its replica keeps up."""

from collections import Counter
from dataclasses import replace

import pytest

from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.routing.policies.affinity import BEGINNING, BOUND, SLACK_REQUESTS
from tests.gateway.routing.simulation import CALLER, Clock, Simulation, chat, pool, router, upstreams


class Homes:
    """Where requests go on replicas of the same speed, with nothing to do."""

    def __init__(self, replicas):
        self.replicas = replicas
        self.router = router("affinity", Clock())
        for replica in replicas:
            self.router.standing(replica).first_token_took(0.1, 1, 1000.0)

    def order(self, call, context=CALLER):
        return [replica.id for replica in self.router.order(pool(self.replicas), self.replicas, context, call)]

    def of(self, call, context=CALLER):
        return self.order(call, context)[0]


CALLS = [chat(f"Conversation {number}, its first turn.") for number in range(2000)]


def test_a_conversation_stays_where_it_began():
    homes = Homes(upstreams(4))
    begun = chat("x" * 600, "y" * 600)
    later = chat("x" * 600, "y" * 600, "an answer", "and on")
    assert homes.order(begun) == homes.order(later)


def test_a_long_beginning_is_shared_and_after_a_short_one_the_first_turn_counts():
    homes = Homes(upstreams(4))
    document = "A long document. " * (BEGINNING // 16)
    assert len({homes.of(chat(document, f"question {number}")) for number in range(50)}) == 1
    assert len({homes.of(chat("Be brief.", f"question {number}")) for number in range(50)}) == 4


def test_each_replica_is_home_to_its_share():
    first, *others = upstreams(4)
    shares = Counter(map(Homes([first, *others]).of, CALLS))
    assert all(count == pytest.approx(500, rel=0.2) for count in shares.values())
    heavy = Counter(map(Homes([replace(first, weight=3.0), *others]).of, CALLS))
    assert heavy[first.id] == pytest.approx(1000, rel=0.15)


def test_two_workers_agree():
    replicas = upstreams(5)
    one, other = Homes(replicas), Homes([replace(replica) for replica in replicas])
    assert [one.order(call) for call in CALLS[:100]] == [other.order(call) for call in CALLS[:100]]


def test_one_that_leaves_moves_only_what_was_its_own():
    replicas = upstreams(5)
    before, after = Homes(replicas), Homes(replicas[1:])
    for call in CALLS[:500]:
        order = [id_ for id_ in before.order(call) if id_ != replicas[0].id]
        assert after.order(call) == order


def test_tenants_have_homes_of_their_own():
    homes = Homes(upstreams(4))
    tenants = [RequestContext("r", tenant=f"team-{number}") for number in range(50)]
    assert len({homes.of(CALLS[0], tenant) for tenant in tenants}) == 4


def test_a_session_stays_together_whatever_it_asks():
    homes = Homes(upstreams(4))
    session = replace(CALLER, session="s-1")
    assert len({homes.of(call, session) for call in CALLS[:100]}) == 1
    sessions = [replace(CALLER, session=f"s-{number}") for number in range(50)]
    assert len({homes.of(CALLS[0], session) for session in sessions}) == 4


def test_a_hot_prefix_spreads_before_its_home_has_much_more_than_the_others():
    clock = Clock()
    hot = Simulation(router("affinity", clock), clock, upstreams(4), [1.0] * 4)
    for standing in map(hot.router.standing, hot.replicas):
        standing.first_token_took(1.0, 1, clock.now)
    counts = Counter(hot.ask(CALLS[0]) for _ in range(200))
    assert max(counts.values()) > 50, "it is spread, not dealt out evenly"
    assert max(counts.values()) <= BOUND * (min(counts.values()) + 1) + SLACK_REQUESTS


def test_a_slow_replica_is_home_only_while_the_fast_one_is_busy():
    clock = Clock()
    pair = Simulation(router("affinity", clock), clock, upstreams(2), [0.1, 2.0])
    for standing, seconds in zip(map(pair.router.standing, pair.replicas), pair.service_s, strict=True):
        standing.first_token_took(seconds, 1, clock.now)
    assert {pair.router.order(pool(pair.replicas), pair.replicas, CALLER, call)[0].id for call in CALLS[:50]} == {
        pair.replicas[0].id
    }
    pair.keep_busy(requests=60, answers=2000)
    assert pair.answered[0] / pair.answered[1] == pytest.approx(20, rel=0.4)


def test_models_that_do_not_generate_have_no_prefixes():
    embedding = Call.of(Endpoint.EMBEDDINGS, {"model": "m", "input": "the same text"})
    homes = Homes(upstreams(4, tasks={"embeddings"}))
    assert len({homes.of(embedding) for _ in range(100)}) == 4
    assert len({homes.of(CALLS[0]) for _ in range(100)}) == 4


def test_a_prompt_without_text_is_balanced():
    homes = Homes(upstreams(4))
    tokens = Call.of(Endpoint.COMPLETIONS, {"model": "m", "prompt": [1, 2, 3]})
    assert len({homes.of(tokens) for _ in range(100)}) == 4
