"""Who asks: checks the key of every request, on every route but the ones named in PUBLIC_PATHS.

Without any key defined the gateway is open to programs on its own machine. A web page must not become one of them,
so a Host or Origin that is not loopback's is refused (DNS rebinding, cross-site requests).
"""

from collections.abc import Awaitable, Mapping
from urllib.parse import urlsplit

from gateway.context import RequestContext, current, door_of
from gateway.errors import AuthenticationError, PermissionDenied
from gateway.keys.ring import KeyRing
from gateway.middleware.asgi import ASGIApp, Receive, Scope, Send, exchange_of
from gateway.middleware.wishes import with_wishes
from gateway.server.exchange import Exchange
from gateway.server.response_head import Headers
from gateway.settings import Key, is_loopback

PUBLIC_PATHS = frozenset({"/health/live", "/health/ready"})
KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})


class Authentication:
    """Puts the caller into the request's context.

    Args:
        ring: the keys that are accepted.
        insecure: while no key is defined, serve any host without one.
        loopback: this gateway listens on loopback only, and while no key is defined serves who is there.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing, insecure: bool, loopback: bool) -> None:
        self._app = app
        self._ring = ring
        self._insecure = insecure
        self._loopback = loopback

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange, key = exchange_of(scope), None
        try:
            if scope["path"] not in PUBLIC_PATHS:
                key = self._check(scope, exchange.fields)
        finally:  # also who is turned away has a request id
            context = self._context(exchange, key, door_of(scope["path"]))
            current.set(context)
        wishes = with_wishes(context, key, exchange.fields)
        if wishes is not context:
            current.set(wishes)
        return self._app(scope, receive, send)

    def _check(self, scope: Scope, fields: Mapping[bytes, bytes]) -> Key | None:
        if self._ring.defined or not (self._insecure or self._loopback):
            return self._ring.find(_presented_key(_key_headers(scope["headers"], fields)))
        self._ring.check_known()
        if not self._insecure:
            _check_loopback(scope)
        return None

    def _context(self, exchange: Exchange, key: Key | None, door: str) -> RequestContext:
        request_id, cache_control = exchange.request_id.decode(), exchange.fields.get(b"cache-control")
        if key is None:
            return RequestContext(request_id, admin=self._loopback, door=door, cache_control=cache_control)
        return RequestContext(request_id, *key.caller, door, cache_control)


def _key_headers(headers: Headers, fields: Mapping[bytes, bytes]) -> Headers:
    """Every one of them: of a repeated header `fields` has the last only."""
    if len(fields) == len(headers):
        return [(name, fields[name]) for name in KEY_HEADERS if name in fields]
    return [header for header in headers if header[0] in KEY_HEADERS]


def _presented_key(headers: Headers) -> bytes:
    """The one key of a request, whichever headers it comes in."""
    presented = None
    for name, value in headers:
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
