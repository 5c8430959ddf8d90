"""Serve's own HTTP route for a model: requests go through to the engine server, bytes for bytes.

It is a second way in, not a second lock: the client's Authorization goes through and the engine checks the key. Only
the routes and headers named here pass; the engine's admin routes and its private headers are out of reach.
"""

from collections.abc import AsyncGenerator

import aiohttp
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

ROUTES = frozenset(
    {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/score"),
        ("POST", "/v1/rerank"),
        ("GET", "/v1/models"),
        ("GET", "/health"),
    }
)
REQUEST_HEADERS = ("accept", "authorization", "content-type")
RESPONSE_HEADERS = ("cache-control", "content-type", "www-authenticate")


async def forward(request: Request, http: aiohttp.ClientSession, url: str) -> Response:
    """Sends the request to the engine at `url` and streams its answer.

    A client that goes away cancels this call or closes the answer's body; both close the engine's connection.
    """
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if (request.method, path) not in ROUTES:
        return _error(404, f"no such route: {request.method} {path}", "not_found")
    headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
    try:
        upstream = await http.request(request.method, url + path, headers=headers, data=await request.body())
    except aiohttp.ClientError:
        return _error(502, "the engine does not answer", "upstream_failed")
    passed = {name: upstream.headers[name] for name in RESPONSE_HEADERS if name in upstream.headers}
    return StreamingResponse(_body(upstream), status_code=upstream.status, headers=passed)


async def _body(upstream: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    async with upstream:
        async for chunk in upstream.content.iter_any():
            yield chunk


def _error(status: int, message: str, code: str) -> Response:
    kind = "invalid_request_error" if status < 500 else "upstream_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
