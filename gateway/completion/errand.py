"""One call on its way to an answer: who was asked, what came of it, and whether anybody else is to be asked."""

from collections.abc import Sequence, Set
from time import monotonic

from gateway.completion.request import Call
from gateway.completion.retries import Rules
from gateway.context import RequestContext
from gateway.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    GatewayError,
    NoReplica,
    Overloaded,
    ReplicaSilent,
    ReplicaUnreachable,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRejected,
)
from gateway.routing.replica import Replica

# A request may be what ends an engine; it does not get to try them all.
_MAX_SILENT = 2
# Of engines that answer, but not with an answer: of one model.
_MAX_FAULTS = 4
_NONE: Set[str] = frozenset()
# What another model may do better.
_OF_THE_MODEL = (UpstreamFailed, UpstreamBusy, NoReplica, Overloaded, DeadlineExceeded, ContextLengthExceeded)


class Errand:
    """
    Attributes:
        until: when the answer has to be whole, by `time.monotonic`: the loop's clock, without asking which loop runs.
        asked: how often an engine was.
        engine_s: seconds that engines took of it.
        queued_s: seconds that it waited for a place at them.
        replica: the last that was asked.
        spent: ids of replicas that are not to be asked again.
        failure: of the model, the one that says most; None while there is none.
        revision: of the model that was asked, when it was.
        resuming: it is now asked for the rest of an answer.
    """

    __slots__ = (
        "_costs", "_doubtful", "_faults", "_silent", "asked", "call", "context", "engine_s", "failure", "queued_s",
        "replica", "resuming", "revision", "spent", "until",
    )  # fmt: skip

    def __init__(self, call: Call, context: RequestContext, total_s: float, revision: str) -> None:
        self.call = call
        self.context = context
        self.revision = revision
        self.asked = 0
        self.engine_s = 0.0
        self.queued_s = 0.0
        self.replica: Replica | None = None
        self.failure: GatewayError | None = None
        self.spent: Set[str] = _NONE
        self.resuming = False
        self._doubtful: Set[str] = _NONE  # hosts that an engine has left it on
        self._silent = self._faults = 0
        self._costs = False
        self.until = monotonic() + total_s
        if context.until is not None and context.until < self.until:
            self.until = context.until

    @property
    def late(self) -> bool:
        return monotonic() >= self.until

    @property
    def wary(self) -> bool:
        """Whether an engine has left it. One that has gone with that one shall not count as a second."""
        return bool(self._doubtful)

    def safest_first(self, replicas: Sequence[Replica]) -> Sequence[Replica]:
        """The same, last those on a machine that an engine has left it on: all of them may just be going."""
        doubtful = self._doubtful
        return sorted(replicas, key=lambda one: one.origin.host in doubtful) if doubtful else replicas

    def resume(self) -> None:
        """The last that was asked has left it in the middle of its answer."""
        self.resuming = True
        if self.replica is not None:
            self._left_by(self.replica)

    def failed(self, replica: Replica, error: GatewayError) -> None:
        """Takes note of it; raises `error` when no other replica is to be asked."""
        if self.failure is None or not isinstance(error, ReplicaUnreachable):
            self.failure = error
        if self.late:
            if isinstance(error, ReplicaUnreachable):  # there was no time left to reach it
                raise DeadlineExceeded("The answer was not there in time.") from error
            raise error
        if isinstance(error, ReplicaUnreachable):
            self._spend(replica)
        elif isinstance(error, ReplicaSilent | DeadlineExceeded):
            self._left_by(replica)
            self._silent += 1
            self._costs = self._costs or isinstance(error, DeadlineExceeded)
            if self._silent == _MAX_SILENT:
                raise error
        elif isinstance(error, UpstreamFailed | UpstreamBusy):
            self._costs = True
            self._faults += 1
            if self._faults == _MAX_FAULTS:
                raise error
        elif self.resuming and isinstance(error, UpstreamRejected):
            self._spend(replica)  # it does not take the beginning of an answer, whatever was said of it
        else:
            raise error  # the request's own

    def pay(self, rules: Rules) -> None:
        """Before one is asked; raises the failure before it when that costs, and the model's budget is used up."""
        if self._costs and self.failure is not None:
            self._costs = False
            if not rules.budget.spend(monotonic()):
                raise self.failure

    def next_model(self, error: GatewayError) -> bool:
        """Whether another model may be asked after this one failed so."""
        self._faults, self._costs, self.failure = 0, False, None
        return isinstance(error, _OF_THE_MODEL) and self._silent < _MAX_SILENT and not self.late

    def told(self, error: GatewayError) -> GatewayError:
        """The error, with what its headers tell."""
        error.headers = {**error.headers, "x-llmgw-attempts": str(self.asked)}
        return error

    def _spend(self, replica: Replica) -> None:
        self.spent = self.spent | {replica.id}

    def _left_by(self, replica: Replica) -> None:
        self._spend(replica)
        self._doubtful = self._doubtful | {replica.origin.host}
