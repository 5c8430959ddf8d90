"""How a connection learns that the machine at its other end is gone.

A machine that lost its power or its network closes nothing. Without this, what was written to it waits a quarter of an
hour for the kernel to give up, and what is read from it until `Timeouts` says so, which has to bear a long prefill. A
machine that is there acknowledges within milliseconds, however busy its engine is.
Source: https://man7.org/linux/man-pages/man7/tcp.7.html
"""

import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aiohttp import AddrInfoType

GONE_S = 10  # without a sign of life, or with its receive buffer full: an engine that has not read for as long
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_S * 1000),
)


class Options(Protocol):
    """A socket, as far as it is asked for here: transports show theirs without the rest."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def watch(connection: Options) -> None:
    """From now on it is lost when the other machine has been silent for GONE_S."""
    for option in _OPTIONS:
        connection.setsockopt(*option)


def watched(address: "AddrInfoType") -> socket.socket:
    """A new socket of the kind that `address` wants, as aiohttp makes them."""
    family, kind, protocol, *_ = address
    connection = socket.socket(family, kind, protocol)
    watch(connection)
    return connection
