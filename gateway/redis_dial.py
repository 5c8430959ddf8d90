"""Opens the connection that redis_link.py keeps: over a unix socket, TCP or TLS, to the master that is found."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gateway.redis_address import SERVER_PORT, Address
from gateway.redis_master import Finder

Protocol = TypeVar("Protocol", bound=asyncio.Protocol)


async def dial(address: Address, finder: Finder | None, protocol: Callable[[], Protocol]) -> Protocol:
    """
    Args:
        finder: the address', kept by the caller: what it has found helps it the next time.

    Raises:
        OSError: nobody answers.
        RedisError: there is no master.
    """
    loop, options = asyncio.get_running_loop(), address.options
    if "path" in options:
        return (await loop.create_unix_connection(protocol, options["path"]))[1]
    tls = _tls(options)
    # Looked for at each connection, since another server may have become the master.
    host, port = await finder.find() if finder else (options.get("host", "localhost"), options.get("port", SERVER_PORT))
    return (await loop.create_connection(protocol, host, port, ssl=tls))[1]


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    if not options["ssl"]:
        return None
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context
