"""The end of a connection whose client still sends.

A socket that is closed with bytes in it that nobody has read resets its connection, and a reset takes along what the
client has not read yet: its answer. So only our side ends, and what still comes is thrown away until the client ends
its own.
Source: https://www.rfc-editor.org/rfc/rfc9112#section-9.6
"""

import asyncio

from gateway.server.bounds import Bounds

# Of the largest size: also a client whose body is too large gets to the end of it, as a rule.
_BODIES = 4


class LingeringClose(asyncio.Protocol):
    """Takes the place of `connection` on its transport, until that is lost; how long it may take is for others to say.

    Args:
        bounds: beyond some times the bytes of its body the connection is closed after all.
    """

    def __init__(self, connection: asyncio.Protocol, transport: asyncio.Transport, bounds: Bounds) -> None:
        self._connection = connection
        self._transport = transport
        self._left = _BODIES * bounds.body_bytes
        transport.set_protocol(self)
        if transport.can_write_eof():  # not over TLS
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
