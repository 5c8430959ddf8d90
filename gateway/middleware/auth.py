"""Who asks: checks the key of every request, on every route but the ones named in PUBLIC_PATHS.

Without any key defined the gateway is open to programs on its own machine. A web page must not become one of them,
so a Host or Origin that is not loopback's is refused (DNS rebinding, cross-site requests).
"""

import hashlib
from collections.abc import Iterable
from urllib.parse import urlsplit

from gateway.context import RequestContext, current
from gateway.errors import AuthenticationError, PermissionDenied
from gateway.middleware.asgi import ASGIApp, Receive, Scope, Send
from gateway.settings import Key, is_loopback

PUBLIC_PATHS = frozenset({"/health/live", "/health/ready"})
KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key")


class Authentication:
    """Puts the caller into the request's context.

    Args:
        keys: the keys that are accepted; with none, only loopback hosts are.
        insecure: serve any host without a key.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[Key], insecure: bool) -> None:
        self._app = app
        self._keys = {key.hash.removeprefix("sha256:"): key for key in keys}
        self._open = insecure and not self._keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PUBLIC_PATHS and not self._open:
            if self._keys:
                self._authenticate(scope)
            else:
                _check_loopback(scope)
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        presented = set(_presented_keys(scope))
        if len(presented) != 1:
            raise AuthenticationError(
                "Conflicting API keys in one request; send one." if presented
                else "No API key; send `Authorization: Bearer <key>`."
            )  # fmt: skip
        # Looked up by digest: how long that takes tells nothing about a key.
        key = self._keys.get(hashlib.sha256(presented.pop()).hexdigest())
        if key is None:
            raise AuthenticationError("Unknown API key; check it, or ask its issuer for a new one.")
        context = current.get()
        current.set(RequestContext(context.request_id, key.tenant, key.name, key.models))


def _presented_keys(scope: Scope) -> Iterable[bytes]:
    for name, value in scope["headers"]:
        if name not in KEY_HEADERS:
            continue
        if name == b"authorization":
            scheme, _, value = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise AuthenticationError("Only the Bearer scheme is accepted in Authorization.")
        yield value.strip()


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
