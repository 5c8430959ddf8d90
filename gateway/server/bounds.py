"""What one client may take, before any key is asked for."""

from dataclasses import dataclass

from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on one connection; sizes in bytes, times in seconds, each of which may be exceeded by up to `head_s`.

    Attributes:
        body_bytes: of one request body, however it is framed.
        body_s: from the first wait for a body until its end.
        head_bytes: of a request line and its headers.
        head_s: from the first byte of a request head, or the connection's start, to its end.
        idle_s: of a kept connection between two requests.
        stalled_s: without reading, while more of its answer waits.
        pipelined: requests that may wait behind the one being answered.
        buffered_bytes: of a body that nobody has read yet; beyond it the socket is not read.
    """

    body_bytes: int = 8 * 1024 * 1024
    body_s: float = 30.0
    head_bytes: int = 64 * 1024
    head_s: float = 20.0
    idle_s: float = 75.0
    stalled_s: float = 120.0
    pipelined: int = 8
    buffered_bytes: int = 64 * 1024

    @classmethod
    def of(cls, settings: Settings) -> "Bounds":
        return cls(body_bytes=settings.max_body_bytes, body_s=settings.body_timeout_s)
