"""Every error a client can meet: status, type and code live on the class, the message on the instance.

    GatewayError                     500  a defect of ours
      InvalidRequest                 400  the request itself is wrong
        InvalidHTTP                       the connection is closed after it
        InvalidJSON
        InvalidField                      names the field in `param`
        ContextLengthExceeded             the prompt cannot fit the model
      AuthenticationError            401
      PermissionDenied               403
        TooManySessions                   the tenant has as many as it may have
      NotFound                       404
        ModelNotFound
        SessionNotFound
      MethodNotAllowed               405
      RequestTimeout                 408  the body did not arrive in time
      BodyTooLarge                   413
      HeadTooLarge                   431
      UnprocessableInput             422  a chain's or a skill's input does not fit its schema
      RateLimited                    429  the key has used up its minute, or has too many answers open
      OverBudget                     429  the key has used up its day or month
      UpstreamRejected               4xx  the engine's own verdict on the request
        UpstreamBusy             429, 503  every replica wants to be asked later
      UpstreamFailed                 502  the engine answered, but not with an answer
        ReplicaUnreachable                no connection: another replica is asked
        ReplicaSilent                     closed without an answer: one other replica is asked
        StreamInterrupted                 a stream that began and did not finish
      NoReplica                      503  nobody is there to answer
        ModelStarting                     somebody will be, later than a request waits
      Overloaded                     503  the model is asked for more than it can do
      KeysUnavailable                503  nobody can tell yet whether a key is one
      UsageUnavailable               503  nobody can tell what was used
      SessionsUnavailable            503  nobody can tell what was said in a session, or keep it
      DeadlineExceeded               504  the engine did not go on in time

The wire form is OpenAI's: `{"error": {"message", "type", "param", "code"}}`.
Source: https://platform.openai.com/docs/guides/error-codes
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import orjson


def _retry_after(wait_s: float) -> dict[str, str]:
    seconds, milliseconds = math.ceil(wait_s), math.ceil(wait_s * 1000)
    return {"retry-after": str(seconds), "retry-after-ms": str(milliseconds), "x-should-retry": "true"}


class GatewayError(Exception):
    """Base of all errors that reach a client.

    Args:
        message: one sentence that says what is wrong and what to do.
        param: the request field at fault, when there is one.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    # What OpenAI's SDK goes by when it tries again: `retry-after-ms`, `retry-after` and `x-should-retry`.
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def payload(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def body(self) -> bytes:
        return orjson.dumps(self.payload())

    def event(self) -> bytes:
        """The error as one server-sent event, for a stream that has already begun."""
        return b"data: " + self.body() + b"\n\n"


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code: str | None = None


class InvalidHTTP(InvalidRequest):
    code = "invalid_http"


class InvalidJSON(InvalidRequest):
    code = "invalid_json"


class InvalidField(InvalidRequest):
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class AuthenticationError(GatewayError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class PermissionDenied(GatewayError):
    status = 403
    type = "permission_error"
    code = "permission_denied"


class TooManySessions(PermissionDenied):
    code = "too_many_sessions"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class SessionNotFound(NotFound):
    code = "session_not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class BodyTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class HeadTooLarge(GatewayError):
    status = 431
    type = "invalid_request_error"
    code = "head_too_large"


class UnprocessableInput(GatewayError):
    status = 422
    type = "invalid_request_error"
    code = "invalid_input"


class RateLimited(GatewayError):
    type = "rate_limit_error"
    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, wait_s: float, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """`headers` tell of the limit that is in the way."""
        super().__init__(message)
        self.headers = {
            **_retry_after(wait_s),
            **{name.decode(): value.decode() for name, value in headers},
        }


class OverBudget(GatewayError):
    type = "insufficient_quota"
    status = 429
    code = "insufficient_quota"

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.headers = {"retry-after": str(math.ceil(wait_s)), "x-should-retry": "false"}


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


class _Unavailable(GatewayError):
    status = 503
    headers: Mapping[str, str] = {"retry-after": "1", "retry-after-ms": "1000", "x-should-retry": "true"}


class NoReplica(_Unavailable):
    type = "overloaded_error"
    code = "no_replica"


class ModelStarting(NoReplica):
    code = "model_starting"
    headers: Mapping[str, str] = {"retry-after": "10", "retry-after-ms": "10000", "x-should-retry": "true"}


class Overloaded(GatewayError):
    status = 503
    type = "overloaded_error"
    code = "overloaded"

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.headers = _retry_after(wait_s)


class KeysUnavailable(_Unavailable):
    code = "keys_unavailable"


class UsageUnavailable(_Unavailable):
    code = "usage_unavailable"


class SessionsUnavailable(_Unavailable):
    code = "sessions_unavailable"


class DeadlineExceeded(GatewayError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    # A prefill that took too long once would do so again.
    headers: Mapping[str, str] = {"x-should-retry": "false"}
