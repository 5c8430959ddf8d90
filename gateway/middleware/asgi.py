"""What the layers share: the types of the protocol, and the server's extension to it.

The layers are ASGI applications with one liberty: gateway/server puts its Exchange into the scope, so they can add a
header to the response or read its status without a wrapper around every `send`.
Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.server.exchange import Exchange

__all__ = ["ASGIApp", "Receive", "Scope", "Send", "exchange_of"]


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that a request is part of."""
    exchange: Exchange = scope["extensions"]["llmgw.exchange"]
    return exchange
