"""What is wrong with a request, or with who makes it."""

import math
from collections.abc import Iterable, Mapping

from gateway.errors.base import GatewayError, retry_after


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
            **retry_after(wait_s),
            **{name.decode(): value.decode() for name, value in headers},
        }


class OverBudget(GatewayError):
    type = "insufficient_quota"
    status = 429
    code = "insufficient_quota"

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.headers = {"retry-after": str(math.ceil(wait_s)), "x-should-retry": "false"}
