"""Opens the connection that redis_link.py keeps: over a unix socket, TCP or TLS, to whom Sentinels name."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gateway.redis_address import Address, sentinels

Protocol = TypeVar("Protocol", bound=asyncio.Protocol)


async def dial(address: Address, protocol: Callable[[], Protocol]) -> Protocol:
    """Raises OSError, or of Sentinels that know no master RedisError."""
    loop, options = asyncio.get_running_loop(), address.options
    if "path" in options:
        return (await loop.create_unix_connection(protocol, options["path"]))[1]
    tls = _tls(options)
    host, port = await _place(address)
    return (await loop.create_connection(protocol, host, port, ssl=tls))[1]


async def _place(address: Address) -> tuple[str, int]:
    """Host and port: looked for at each connection, since another server may have become the master."""
    if not address.sentinels:
        return address.options.get("host", "localhost"), address.options.get("port", 6379)
    async with sentinels(address) as asked:
        host, port = await asked.discover_master(address.service)
    return host, port


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    if not options["ssl"]:
        return None
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context
