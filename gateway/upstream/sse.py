"""Framing of server-sent events, on bytes: frames end in a blank line; a frame's payload follows `data: `.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Iterator

from gateway.errors import StreamInterrupted

MAX_FRAME_BYTES = 4 * 1024 * 1024
DONE = b"data: [DONE]\n\n"


class FrameSplitter:
    """Cuts arriving bytes at the last frame boundary, so that a half-sent event is never passed on.

    Attributes:
        rest: what has come of a frame whose end is not there.
    """

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Returns the complete frames so far (possibly none); line endings come out as `\\n`."""
        if self.rest:
            data = self.rest + data
        elif data.endswith(b"\n\n") and b"\r" not in data:
            return data
        if b"\r" in data:
            held = b"\r" if data.endswith(b"\r") else b""
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n") + held
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            end = 0
        self.rest = data[end:]
        if len(self.rest) > MAX_FRAME_BYTES:
            raise StreamInterrupted("The engine sent an event without end.")
        return data[:end]


def payloads(frames: bytes) -> Iterator[bytes]:
    """The data of each frame that has some; comments and pings are passed over."""
    for frame in frames.split(b"\n\n"):
        lines = [line[5:].lstrip(b" ") for line in frame.split(b"\n") if line.startswith(b"data:")]
        if lines:
            yield b"\n".join(lines)
