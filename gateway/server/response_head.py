"""A response's status line and headers, and the framing that they promise.

Source: https://www.rfc-editor.org/rfc/rfc9112#name-message-body
"""

import http
from collections.abc import Sequence

from gateway.errors import GatewayError

STATUS_LINES = {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in http.HTTPStatus}
Headers = Sequence[tuple[bytes, bytes]]
_BODILESS = frozenset({204, 304})
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})  # are the server's business


class ResponseHead:
    """One head, ready to be sent.

    Args:
        length: of the body in bytes, where the headers do not tell it and it is known.

    Attributes:
        data: as it goes over the wire.
        silent: no body follows, whatever the application sends.
        chunked: the body goes out in chunks.
        length: of the body in bytes, where the head tells it.
        keep_alive: another request may follow.

    Raises:
        RuntimeError: a header would become two.
        ValueError: a content-length is no number.
    """

    __slots__ = ("chunked", "data", "keep_alive", "length", "silent")

    def __init__(
        self, status: int, headers: Headers, method: str, version: str, keep_alive: bool, length: int | None = None
    ) -> None:
        if not _FRAMING.isdisjoint([name for name, _ in headers]):
            fields = dict(headers)
            headers = [header for header in headers if header[0] not in _FRAMING]
            length = int(fields[b"content-length"]) if b"content-length" in fields else length
            keep_alive = keep_alive and fields.get(b"connection", b"").lower() != b"close"
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status, *map(b": ".join, headers)]
        if length is not None:
            lines.append(b"content-length: %d" % length)
        silent = method == "HEAD" or status in _BODILESS
        chunked = length is None and not silent and version == "1.1"
        if chunked:
            lines.append(b"transfer-encoding: chunked")
        elif length is None and not silent:
            keep_alive = False  # the end of the connection is the end of the body
        if not keep_alive:
            lines.append(b"connection: close")
        together = b"".join(lines)
        if together.find(b"\n") >= 0 or together.find(b"\r") >= 0:
            raise RuntimeError("a line break in a response header")
        lines.append(b"\r\n")
        self.data = b"\r\n".join(lines)
        self.silent, self.chunked, self.length, self.keep_alive = silent, chunked, length, keep_alive


def refusal(error: GatewayError, headers: Headers) -> bytes:
    """The answer to what is no request: the last of its connection."""
    body = error.body()
    headers = (*headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    return ResponseHead(error.status, headers, "", "1.1", keep_alive=False).data + body
