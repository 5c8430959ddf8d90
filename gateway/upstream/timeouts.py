"""How long an engine may take, step by step."""

from dataclasses import dataclass

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on one exchange, in seconds.

    Attributes:
        connect: until the TCP (and TLS) connection stands.
        first_byte: from the request until the first byte of the answer.
        first_token: from the request until the first byte of the answer's body: an engine that sends its headers at
            once does its queueing and prefill after them.
        idle: between two reads of the body, and of a stream between two events.
        total: of a whole request with all its attempts; whoever makes them turns it into one `until`.
    """

    connect: float = 2.0
    first_byte: float = 300.0
    first_token: float = 300.0
    idle: float = 60.0
    total: float = 3600.0
