"""A response's status line and headers, and the framing that they promise.

Source: https://www.rfc-editor.org/rfc/rfc9112#name-message-body
"""

import http
from collections.abc import Iterable
from typing import NamedTuple

STATUS_LINES = {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in http.HTTPStatus}
_BODILESS = frozenset({204, 304})
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})  # are the server's business


class ResponseHead(NamedTuple):
    """One head, ready to be sent.

    Attributes:
        silent: no body follows, whatever the application sends.
        chunked: the body goes out in chunks.
        length: of the body in bytes, where the head tells it.
        keep_alive: another request may follow.
    """

    data: bytes
    silent: bool
    chunked: bool
    length: int | None
    keep_alive: bool

    @classmethod
    def encode(
        cls, status: int, headers: Iterable[tuple[bytes, bytes]], method: str, version: str, keep_alive: bool
    ) -> "ResponseHead":
        """Raises RuntimeError when a header would become two, and ValueError on a content-length that is no number."""
        length = None
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
        for header in headers:
            name, value = header
            if name not in _FRAMING:
                lines.append(b": ".join(header))
            elif name == b"content-length":
                length = int(value)
                lines.append(b"content-length: %d" % length)
            elif name == b"connection":
                keep_alive = keep_alive and value.lower() != b"close"
        silent = method == "HEAD" or status in _BODILESS
        chunked = length is None and not silent and version == "1.1"
        if chunked:
            lines.append(b"transfer-encoding: chunked")
        elif length is None and not silent:
            keep_alive = False  # the end of the connection is the end of the body
        if not keep_alive:
            lines.append(b"connection: close")
        data = b"\r\n".join(lines)
        if data.count(b"\n") != len(lines) - 1 or data.count(b"\r") != len(lines) - 1:
            raise RuntimeError("a line break in a response header")
        return cls(data + b"\r\n\r\n", silent, chunked, length, keep_alive)
