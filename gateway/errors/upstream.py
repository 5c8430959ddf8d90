"""What went wrong behind the gateway."""

from collections.abc import Mapping

from gateway.errors.base import GatewayError, retry_after

_SOON: Mapping[str, str] = retry_after(1)


class UpstreamRejected(GatewayError):
    """The engine refused the request itself; its status (400 to 499), words and retry headers are passed on."""

    type = "invalid_request_error"
    code: str | None = None

    def __init__(self, message: str, *, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class UpstreamBusy(UpstreamRejected):
    type = "overloaded_error"
    code = "upstream_busy"


class UpstreamFailed(GatewayError):
    status = 502
    type = "upstream_error"
    code = "upstream_failed"


class ReplicaUnreachable(UpstreamFailed):
    code = "replica_unreachable"


class ReplicaSilent(UpstreamFailed):
    code = "replica_silent"
    # A request that ends two engines would end a third.
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class StreamInterrupted(UpstreamFailed):
    code = "stream_interrupted"


class NoReplica(GatewayError):
    status = 503
    type = "overloaded_error"
    code = "no_replica"
    headers = _SOON


class ModelStarting(NoReplica):
    code = "model_starting"
    headers = retry_after(10)


class Overloaded(GatewayError):
    status = 503
    type = "overloaded_error"
    code = "overloaded"

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.headers = retry_after(wait_s)


class KeysUnavailable(GatewayError):
    status = 503
    code = "keys_unavailable"
    headers = _SOON


class UsageUnavailable(GatewayError):
    status = 503
    code = "usage_unavailable"
    headers = _SOON


class SessionsUnavailable(GatewayError):
    status = 503
    code = "sessions_unavailable"
    headers = _SOON


class DeadlineExceeded(GatewayError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    # A prefill that took too long once would do so again.
    headers: Mapping[str, str] = {"x-should-retry": "false"}
