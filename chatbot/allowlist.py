"""What of Gradio's server may be reached: what the page itself needs, and nothing else.

Gradio also serves uploads, files, an HTTP proxy, run history, monitoring and a REST door to every handler. Here a path
that is not listed does not exist. The content policy keeps a model's answer from making the browser call anywhere
(an image's address can carry the conversation away).
"""

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READ = re.compile(
    r"/|/config|/theme\.css|/manifest\.json|/favicon\.ico|/(assets|static|svelte)/.+"
    r"|/gradio_api/(startup-events|queue/data|theme\.css|heartbeat/[^/]+)"
)
_WRITE = re.compile(r"/gradio_api/(queue/join|cancel|reset)")

# Bytes of one event: a message, the settings and the key. Far above any model's context.
_LARGEST_EVENT = 1 << 20

# Gradio's page starts from inline scripts; its sanitiser keeps a model's own scripts out.
_POLICY = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'self'",
)
_HEADERS = {
    "content-security-policy": "; ".join(_POLICY),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Allowlist:
    """Pure ASGI. `hosts` are the names the page answers to; none given means any.

    With a loopback address the list must be given: else another site could point its own name at 127.0.0.1 and use
    the page's key from a visitor's browser.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := self._refusal(scope["method"], scope["path"], Headers(scope=scope)):
            await PlainTextResponse(*refusal)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[str, int] | None:
        host = headers.get("host", "")
        named = _split(f"//{host}")
        if named is None or (self._hosts and named.hostname not in self._hosts):
            return "Unknown host", 421
        if method in ("GET", "HEAD"):
            return None if _READ.fullmatch(path) else ("Not found", 404)
        if method != "POST" or not _WRITE.fullmatch(path):
            return "Not found", 404
        if "origin" in headers:
            origin = _split(headers["origin"])
            if origin is None or origin.netloc != host:
                return "Not from this page", 403
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return "Length required", 411
        return ("Too long", 413) if int(length) > _LARGEST_EVENT else None


def _split(url: str) -> SplitResult | None:
    """None for what is no URL, such as a bracket that does not close."""
    try:
        return urlsplit(url)
    except ValueError:
        return None
