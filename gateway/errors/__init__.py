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

from gateway.errors.base import GatewayError
from gateway.errors.request import (
    AuthenticationError,
    BodyTooLarge,
    ContextLengthExceeded,
    HeadTooLarge,
    InvalidField,
    InvalidHTTP,
    InvalidJSON,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    OverBudget,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    SessionNotFound,
    TooManySessions,
    UnprocessableInput,
)
from gateway.errors.upstream import (
    DeadlineExceeded,
    KeysUnavailable,
    ModelStarting,
    NoReplica,
    Overloaded,
    ReplicaSilent,
    ReplicaUnreachable,
    SessionsUnavailable,
    StreamInterrupted,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRejected,
    UsageUnavailable,
)

__all__ = [
    "AuthenticationError",
    "BodyTooLarge",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "GatewayError",
    "HeadTooLarge",
    "InvalidField",
    "InvalidHTTP",
    "InvalidJSON",
    "InvalidRequest",
    "KeysUnavailable",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelStarting",
    "NoReplica",
    "NotFound",
    "OverBudget",
    "Overloaded",
    "PermissionDenied",
    "RateLimited",
    "ReplicaSilent",
    "ReplicaUnreachable",
    "RequestTimeout",
    "SessionNotFound",
    "SessionsUnavailable",
    "StreamInterrupted",
    "TooManySessions",
    "UnprocessableInput",
    "UpstreamBusy",
    "UpstreamFailed",
    "UpstreamRejected",
    "UsageUnavailable",
]
