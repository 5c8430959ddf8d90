"""The breaker's states on a simulated clock."""

from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    GatewayError,
    ReplicaSilent,
    ReplicaUnreachable,
    StreamInterrupted,
    UpstreamFailed,
    UpstreamRejected,
)
from gateway.routing.attempt import Attempt
from gateway.routing.breaker import FAILURES, MAX_OPEN_S, MEMORY_S, OPEN_S, OWN_EVIDENCE_S, Breaker, State
from gateway.routing.standing import Standing
from tests.gateway.routing.simulation import Clock, upstreams

REJECTED = UpstreamRejected("too long", status=400, headers={})


class Bench:
    """A breaker under attempts, which are how it is used."""

    def __init__(self):
        self.clock = Clock()
        self.breaker = Breaker(Random(1))
        self.standing = Standing(upstreams(1)[0], self.breaker)
        self.changes = 0
        self.breaker.changed = self._count

    def _count(self):
        self.changes += 1

    @property
    def state(self):
        return self.breaker.state(self.clock())

    def attempt(self):
        return Attempt(self.standing, self.clock)

    def fail(self, error: GatewayError | None = None):
        self.attempt().failed(error or UpstreamFailed("500"))

    def succeed(self):
        attempt = self.attempt()
        attempt.first_token()
        attempt.ended(3)

    def wait_until_due(self):
        self.clock.now = self.breaker.until


@pytest.fixture
def bench():
    return Bench()


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (ReplicaUnreachable("refused"), 1),
        (ReplicaSilent("closed"), FAILURES),
        (UpstreamFailed("500"), FAILURES),
        (StreamInterrupted("cut"), FAILURES),
        (DeadlineExceeded("slow"), FAILURES),
        (REJECTED, None),
        (ContextLengthExceeded("long"), None),
    ],
)
def test_it_opens_after_so_many_failures(bench, error, failures):
    for _ in range((failures or 100) - 1):
        bench.fail(error)
    assert bench.state is State.CLOSED
    if failures:
        bench.fail(error)
        assert bench.state is State.OPEN
        assert bench.changes == 1


def test_a_success_between_failures_makes_them_count_anew(bench):
    for _ in range(5):
        bench.fail()
        bench.fail()
        bench.succeed()
    assert bench.state is State.CLOSED


def test_streams_that_begin_and_break_are_failures_all_the_same(bench):
    for _ in range(FAILURES):
        attempt = bench.attempt()
        attempt.first_token()
        attempt.failed(StreamInterrupted("cut"))
    assert bench.state is State.OPEN


def test_failures_far_apart_have_nothing_to_do_with_each_other(bench):
    for _ in range(10):
        bench.fail()
        bench.clock.now += MEMORY_S + 1
    assert bench.state is State.CLOSED


def test_half_open_lets_one_probe_through(bench):
    bench.fail(ReplicaUnreachable("refused"))
    assert not bench.breaker.due(bench.clock())
    bench.wait_until_due()
    assert bench.state is State.HALF_OPEN
    assert bench.breaker.due(bench.clock())
    probe = bench.attempt()
    assert not bench.breaker.due(bench.clock())
    probe.first_token()
    assert bench.state is State.CLOSED
    probe.ended(1)
    assert bench.state is State.CLOSED


def test_a_probe_that_is_abandoned_or_refused_makes_room_for_the_next(bench):
    bench.fail(ReplicaUnreachable("refused"))
    bench.wait_until_due()
    bench.attempt().abandoned()
    assert bench.breaker.due(bench.clock())
    bench.attempt().failed(REJECTED)
    assert bench.breaker.due(bench.clock())


def test_each_time_it_does_not_hold_it_opens_for_longer_up_to_a_bound(bench):
    bench.fail(ReplicaUnreachable("refused"))
    lengths = []
    for _ in range(2000):  # an hour and more
        lengths.append(bench.breaker.until - bench.clock())
        bench.wait_until_due()
        bench.fail()
    for length, expected in zip(lengths, (OPEN_S, 2 * OPEN_S, 4 * OPEN_S, *[8 * OPEN_S] * 2000), strict=False):
        assert 0.75 * expected <= length <= 1.25 * expected
    assert max(lengths) <= MAX_OPEN_S
    assert len(set(lengths)) > 1900, "gateways do not come back in step"


def test_a_replica_that_flaps_is_left_out_for_longer_and_one_that_was_stable_is_not(bench):
    for _ in range(3):
        bench.fail(ReplicaUnreachable("refused"))
        bench.wait_until_due()
        bench.succeed()
    bench.fail(ReplicaUnreachable("refused"))
    assert bench.breaker.until - bench.clock() > 4 * OPEN_S
    bench.wait_until_due()
    bench.succeed()
    bench.clock.now += 60
    bench.fail(ReplicaUnreachable("refused"))
    assert bench.breaker.until - bench.clock() <= 1.25 * OPEN_S


def test_requests_from_before_a_change_tell_nothing_after_it(bench):
    old = [bench.attempt() for _ in range(3)]
    bench.fail(ReplicaUnreachable("refused"))
    until = bench.breaker.until
    old[0].failed(StreamInterrupted("cut"))
    old[1].ended(5)
    assert (bench.state, bench.breaker.until) == (State.OPEN, until)
    bench.wait_until_due()
    bench.succeed()
    old[2].failed(ReplicaUnreachable("refused"))
    assert bench.state is State.CLOSED


def test_a_request_that_was_sent_for_want_of_others_may_close_it(bench):
    bench.fail(ReplicaUnreachable("refused"))
    bench.fail(ReplicaUnreachable("refused"))
    assert bench.changes == 1
    bench.succeed()
    assert bench.state is State.CLOSED


def test_while_its_health_is_bad_nobody_probes(bench):
    bench.fail(ReplicaUnreachable("refused"))
    bench.wait_until_due()
    bench.breaker.hold(bench.clock(), 1.5)
    assert not bench.breaker.due(bench.clock() + 1.4)
    assert bench.breaker.due(bench.clock() + 1.5)


def test_good_health_brings_it_back_but_not_before_its_time(bench):
    bench.fail(ReplicaUnreachable("refused"))
    until = bench.breaker.until
    bench.breaker.hold(bench.clock(), 30)
    bench.breaker.hold(bench.clock(), 0)
    assert bench.breaker.until == until
    bench.wait_until_due()
    bench.breaker.hold(bench.clock(), 30)
    bench.clock.now += 1
    bench.breaker.hold(bench.clock(), 0)
    assert bench.breaker.due(bench.clock())


def test_the_word_of_another_gateway_opens_it_and_a_probe_decides(bench):
    bench.breaker.told_open(5.0, bench.clock())
    assert (bench.state, bench.breaker.told) == (State.OPEN, True)
    bench.breaker.told_open(6.0, bench.clock())
    assert (bench.changes, bench.breaker.until) == (1, bench.clock() + 6)
    bench.wait_until_due()
    bench.succeed()
    assert (bench.state, bench.breaker.told) == (State.CLOSED, False)


def test_the_word_of_another_gateway_is_bounded_and_doubted_after_an_answer_of_its_own(bench):
    bench.succeed()
    bench.breaker.told_open(5.0, bench.clock() + OWN_EVIDENCE_S / 2)
    assert bench.state is State.CLOSED
    bench.breaker.told_open(1e9, bench.clock() + OWN_EVIDENCE_S)
    assert bench.breaker.until <= bench.clock() + OWN_EVIDENCE_S + MAX_OPEN_S


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, nothing is counted twice and nothing stays shut."""

    def __init__(self):
        super().__init__()
        self.bench = Bench()
        self.open: list[Attempt] = []
        self.over: list[Attempt] = []

    @rule()
    def begin(self):
        self.open.append(self.bench.attempt())

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["ended", "unreachable", "failed", "rejected", "abandoned"]))
    def end(self, data, how):
        attempt = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self._tell(attempt, how)
        self.over.append(attempt)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def first_token(self, data):
        self.open[data.draw(st.integers(0, len(self.open) - 1))].first_token()

    @precondition(lambda self: self.over)
    @rule(data=st.data(), how=st.sampled_from(["ended", "unreachable", "failed", "abandoned", "first"]))
    def tell_again(self, data, how):
        state, era = self.bench.state, self.bench.breaker.era
        self._tell(data.draw(st.sampled_from(self.over)), how)
        assert (self.bench.state, self.bench.breaker.era) == (state, era)

    @rule(seconds=st.floats(0.1, 40))
    def wait(self, seconds):
        self.bench.clock.now += seconds

    @rule(seconds=st.floats(0.1, 100))
    def told(self, seconds):
        self.bench.breaker.told_open(seconds, self.bench.clock())

    @rule()
    def bad_health(self):
        self.bench.breaker.hold(self.bench.clock(), 1.5)

    def _tell(self, attempt: Attempt, how: str) -> None:
        match how:
            case "ended":
                attempt.ended(3)
            case "unreachable":
                attempt.failed(ReplicaUnreachable("refused"))
            case "failed":
                attempt.failed(UpstreamFailed("500"))
            case "rejected":
                attempt.failed(REJECTED)
            case "abandoned":
                attempt.abandoned()
            case "first":
                attempt.first_token()

    @invariant()
    def in_flight_is_what_is_open(self):
        assert self.bench.standing.in_flight == len(self.open)

    @invariant()
    def it_is_open_for_a_bounded_time(self):
        breaker, now = self.bench.breaker, self.bench.clock()
        assert breaker.closed or breaker.until <= now + MAX_OPEN_S

    @invariant()
    def the_next_request_after_its_time_is_a_probe_unless_one_is_out(self):
        breaker = self.bench.breaker
        if not breaker.closed and not self.open:
            assert breaker.due(breaker.until)


TestAnyOrder = AnyOrder.TestCase
