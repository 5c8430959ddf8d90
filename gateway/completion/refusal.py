"""An engine's error status in our terms: the client's fault is passed on, the cluster's is not shown."""

import logging
import math
import time
from email.utils import parsedate_to_datetime

import orjson

from gateway.completion.context_window import exceeded
from gateway.completion.request import Call
from gateway.errors import GatewayError, UpstreamBusy, UpstreamFailed, UpstreamRejected
from gateway.routing.replica import Replica
from gateway.upstream.client import UpstreamResponse

log = logging.getLogger(__name__)

_MAX_ERROR_BYTES = 1024 * 1024
_RETRY_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
# The engines' own names for a prompt that is too long: llama.cpp's, OpenAI's and, in words, vLLM's.
_TOO_LONG = ("context_size", "context_length")


async def refusal(exchange: UpstreamResponse, replica: Replica, call: Call) -> GatewayError:
    status, message, kind = exchange.status, "", ""
    try:
        error = orjson.loads(await exchange.body(_MAX_ERROR_BYTES))
        error = error.get("error", error)
        message, kind = str(error["message"]), f"{error.get('type')} {error.get('code')}"
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        message = f"status {status}"
    if status == 400 and (any(name in kind for name in _TOO_LONG) or "maximum context length" in message):
        return exceeded(call, replica.max_model_len, "the engine counted more")
    retry = {name: exchange.headers.get(name.encode(), b"").decode("latin-1") for name in _RETRY_HEADERS}
    headers = {name: value for name, value in retry.items() if value}
    if status == 429:
        return UpstreamBusy(message, status=status, headers=headers)
    if 400 <= status < 500 and status not in {401, 403, 404, 405, 407}:
        return UpstreamRejected(message, status=status, headers=headers)
    log.warning("replica %s answered %d: %s", replica.id, status, message)
    if status == 503:
        busy = f"The engine of '{call.model}' is overloaded. Please try again."
        return UpstreamBusy(busy, status=status, headers=headers)
    return UpstreamFailed(f"The engine of '{call.model}' failed (status {status}). Please try again.")


def pause_s(error: UpstreamBusy) -> float | None:
    """The pause that a replica asked for, in seconds; None where it did not."""
    milliseconds, seconds = error.headers.get("retry-after-ms"), error.headers.get("retry-after", "")
    try:
        if milliseconds:
            pause = float(milliseconds) / 1000
        elif "," in seconds:
            pause = parsedate_to_datetime(seconds).timestamp() - time.time()
        else:
            pause = float(seconds)
    except ValueError:
        return None
    return pause if math.isfinite(pause) and pause > 0 else None


def later(error: UpstreamBusy, seconds: float) -> UpstreamBusy:
    """The same answer, with the time that is left."""
    left = {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
    return UpstreamBusy(error.message, status=error.status, headers={**error.headers, **left})
