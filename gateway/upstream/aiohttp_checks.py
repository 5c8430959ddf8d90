"""What aiohttp lets through is checked here, and its errors are put in our terms."""

import re

import aiohttp

from gateway.errors import DeadlineExceeded, GatewayError, ReplicaSilent, ReplicaUnreachable, UpstreamFailed
from gateway.upstream.connection import MAX_HEADER_BYTES

LATE = "The engine did not go on with its answer in time."
BROKEN = "The engine closed the connection in the middle of its answer."
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,18}")  # what a 64-bit parser cannot take for "unknown"


def checked(response: aiohttp.ClientResponse) -> tuple[dict[bytes, bytes], bool]:
    """The headers, and whether the answer ends with its connection; raises for what aiohttp's parser lets through."""
    pairs = [(name.lower(), value) for name, value in response.raw_headers]
    headers = dict(pairs)
    encoding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if response.status < 200:
        what = "switched protocols unasked"
    elif sum(len(name) + len(value) for name, value in pairs) > MAX_HEADER_BYTES:
        what = "sent headers without end"
    elif any(_CONTROL.search(value) for _, value in pairs):
        what = "sent a control character in a header"
    elif sum(name in {b"transfer-encoding", b"content-length"} for name, _ in pairs) > 1:
        what = "gave the length of its answer twice"
    elif encoding is not None and encoding.lower() != b"chunked":
        what = "used a transfer encoding that was not asked for"
    elif length is not None and not _LENGTH.fullmatch(length):
        what = "gave its answer an impossible length"
    elif headers.get(b"content-encoding", b"identity").lower() != b"identity":
        what = "used a content encoding that was not asked for"
    else:
        return headers, encoding is None and length is None
    raise UpstreamFailed(f"The engine broke the HTTP protocol: it {what}.")


def translated(error: TimeoutError | aiohttp.ClientError) -> GatewayError:
    """aiohttp's error before the head of an answer, in our terms."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return ReplicaUnreachable(f"No connection to the engine ({type(error).__name__}).")
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(LATE)
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        return UpstreamFailed(BROKEN)  # the message is the half of a head that had come
    if isinstance(error, aiohttp.ClientConnectionError):
        return ReplicaSilent("The engine closed the connection without an answer.")
    return UpstreamFailed(f"The engine broke the HTTP protocol ({type(error).__name__}).")
