"""Whether a client has left whose connection is not being read: the event loop tells that only to who reads.

A client that leaves in good order behind more than the socket's buffers hold cannot be seen: the end is not here yet.
Source: https://man7.org/linux/man-pages/man7/tcp.7.html
"""

import asyncio
import socket

# The kernel's TCP_CLOSE, of a connection that was reset, and TCP_CLOSE_WAIT, of one that the client has closed.
_LEFT = frozenset({7, 8})


def has_left(transport: asyncio.Transport) -> bool:
    connection = transport.get_extra_info("socket")
    if transport.is_closing() or connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT  # its first byte is the state
