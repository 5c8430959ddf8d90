"""Who asks: checks the key of every request, on every route but the ones named in PUBLIC_PATHS.

Without any key defined the gateway is open to programs on its own machine. A web page must not become one of them,
so a Host or Origin that is not loopback's is refused (DNS rebinding, cross-site requests).
"""

import hashlib
from collections.abc import Awaitable, Iterable
from urllib.parse import urlsplit

from gateway.context import RequestContext, current
from gateway.errors import AuthenticationError, PermissionDenied
from gateway.middleware.asgi import ASGIApp, Receive, Scope, Send, exchange_of
from gateway.server.exchange import Exchange
from gateway.settings import Key, is_loopback

PUBLIC_PATHS = frozenset({"/health/live", "/health/ready"})
KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})


class Authentication:
    """Puts the caller into the request's context.

    Args:
        keys: the keys that are accepted; with none, only loopback hosts are.
        insecure: serve any host without a key.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[Key], insecure: bool) -> None:
        self._app = app
        self._keys = {bytes.fromhex(key.hash.removeprefix("sha256:")): key for key in keys}
        self._open = insecure and not self._keys

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange, key = exchange_of(scope), None
        try:
            if scope["path"] not in PUBLIC_PATHS and not self._open:
                key = self._check(scope)
        finally:  # also who is turned away has a request id
            current.set(_context(exchange, key))
        return self._app(scope, receive, send)

    def _check(self, scope: Scope) -> Key | None:
        if not self._keys:
            _check_loopback(scope)
            return None
        # Looked up by digest: how long that takes tells nothing about a key.
        key = self._keys.get(hashlib.sha256(_presented_key(scope)).digest())
        if key is None:
            raise AuthenticationError("Unknown API key; check it, or ask its issuer for a new one.")
        return key


def _context(exchange: Exchange, key: Key | None) -> RequestContext:
    request_id, cache_control = exchange.request_id.decode(), exchange.fields.get(b"cache-control")
    if key is None:
        return RequestContext(request_id, cache_control=cache_control)
    return RequestContext(
        request_id, key.tenant, key.name, key.models, key.requests_per_minute, key.cache, cache_control
    )


def _presented_key(scope: Scope) -> bytes:
    """The one key of a request, whichever headers it comes in."""
    presented = None
    for name, value in scope["headers"]:
        if name not in KEY_HEADERS:
            continue
        if name == b"authorization":
            scheme, _, value = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise AuthenticationError("Only the Bearer scheme is accepted in Authorization.")
        value = value.strip()
        if presented is not None and presented != value:
            raise AuthenticationError("Conflicting API keys in one request; send one.")
        presented = value
    if presented is None:
        raise AuthenticationError("No API key; send `Authorization: Bearer <key>`.")
    return bytes(presented)


def _check_loopback(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name in (b"host", b"origin") and not is_loopback(_hostname(value) or ""):
            raise PermissionDenied("Without API keys only programs on this machine are served; define keys to open it.")


def _hostname(value: bytes) -> str | None:
    text = value.decode("latin-1")
    try:
        return urlsplit(text if "://" in text else f"//{text}").hostname
    except ValueError:
        return None
