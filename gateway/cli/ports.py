"""Listening sockets: is a port free, and how do several workers share one."""

import os
import socket

from gateway.settings import ConfigError


def check_free(host: str, port: int, option: str) -> None:
    """Raises ConfigError when something listens there already; `option` is how to choose another."""
    try:
        with socket.create_server((host, port), family=family(host)):
            return
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; choose another port with {option}"
        ) from error


def shared(host: str, port: int) -> socket.socket:
    """A bound socket whose port other sockets of this user can be bound to as well (SO_REUSEPORT)."""
    listener = socket.socket(family(host), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    return listener


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
