"""What a failure inside LangChain or Semantic Kernel looks like from outside the gateway.

Both libraries wrap the errors of their models; the `GatewayError` that began it is still there, as a cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import ContextOverflowError

from gateway.errors import ContextLengthExceeded, GatewayError, UnprocessableInput, UpstreamFailed
from skills import InvalidArgument


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__


def behind(error: BaseException) -> GatewayError | None:
    """The error a client may see; None when the failure is a defect, of which it sees nothing."""
    for cause in _causes(error):
        if isinstance(cause, GatewayError):
            return cause
        if isinstance(cause, ContextOverflowError) and cause.__cause__ is None:  # raised by a chain, not by a model
            return ContextLengthExceeded(str(cause))
        if isinstance(cause, InvalidArgument):
            return UnprocessableInput(str(cause), param=cause.parameter)
    return None


@contextmanager
def published() -> Iterator[None]:
    """Raises the `GatewayError` behind a failure of the block; a defect passes as it is."""
    try:
        yield
    except Exception as error:
        found = behind(error)
        if found is None:
            raise
        raise found from error


@contextmanager
def understood() -> Iterator[None]:
    """Raises UpstreamFailed where the block cannot read what an engine has answered."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UpstreamFailed("The engine's answer does not have OpenAI's form.") from error
