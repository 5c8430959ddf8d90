"""Listening sockets: is a port free, how do several workers share one, and how is it reached."""

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


def reachable(host: str) -> str:
    """An address that a program on this machine can connect to, for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
