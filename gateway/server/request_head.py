"""A request's line and headers, and what of them frames the request.

Source: https://www.rfc-editor.org/rfc/rfc9112#name-request-target
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import httptools
from starlette.types import Scope

from gateway.errors import InvalidHTTP

# httptools takes RTSP's and Icecast's requests, too.
_OTHER_PROTOCOLS = frozenset(
    b"SOURCE DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH".split()
)


class RequestHead:
    """One head, complete.

    Attributes:
        method, version, target: of the request line, as they were sent.
        headers: names in lower case.
        fields: the same by name; of a repeated one the last.
        declared: the content-length in bytes; 0 without one.
        expects_continue: the client waits for a `100 Continue` before it sends the body.

    Raises:
        InvalidHTTP: it is no HTTP/1 request.
    """

    def __init__(self, method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> None:
        if version not in {"1.1", "1.0"} or method in _OTHER_PROTOCOLS:
            raise InvalidHTTP("This server speaks HTTP/1.1.")
        self.method, self.version, self.target = method.decode("ascii"), version, target
        self.headers, self.fields = headers, (fields := dict(headers))
        if b"host" not in fields:
            if version == "1.1":
                raise InvalidHTTP("A request has one Host header.")
        elif len(fields) < len(headers) and sum([name == b"host" for name, _ in headers]) > 1:
            raise InvalidHTTP("A request has one Host header.")
        if b"transfer-encoding" in fields and fields[b"transfer-encoding"].lower() != b"chunked":
            raise InvalidHTTP("The only transfer-encoding taken is chunked.")
        self.declared = int(fields.get(b"content-length", 0))
        self.expects_continue = (
            b"expect" in fields and version == "1.1" and fields[b"expect"].lower() == b"100-continue"
        )

    @property
    def has_body(self) -> bool:
        """Whether some framing of a body was declared."""
        return self.declared > 0 or b"transfer-encoding" in self.fields

    def scope(self, connection: Mapping[str, Any]) -> Scope:
        """The ASGI scope of the request; `connection` has what is the same for all on one connection."""
        raw_path, query = _path_and_query(self.target)
        path = raw_path.decode("ascii")
        return {
            **connection,
            "http_version": self.version,
            "method": self.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "extensions": {},
        }

    def framing(self) -> bytes:
        """The header lines that frame the body."""
        framed = (b"content-length", b"transfer-encoding")
        return b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] in framed)


def _path_and_query(target: bytes) -> tuple[bytes, bytes]:
    if target.startswith(b"/") and target.find(b"#") < 0:  # what the parser let through has no other special characters
        path, _, query = target.partition(b"?")
        return path, query
    url: Any = httptools.parse_url(target)  # whose types do not say that a part may be missing
    return url.path or b"/", url.query or b""
