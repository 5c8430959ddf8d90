"""The one OpenAPI document: FastAPI's own, with what it does not know.

The completion endpoints are raw ASGI, errors have one form on every route, and every route wants a key. A key that is
limited to some chains sees those: what it may not call it is not told of.
"""

import re
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.completion.endpoint import Endpoint
from gateway.context import RequestContext, current

_REF = "#/components/schemas/{model}"
_REFERENCE = re.compile(rb'"#/components/schemas/([^"]+)"')
_CHAIN = re.compile(r"/chains/([^/]+)/")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_FAILURE = {
    "description": "What is wrong, and what to do.",
    "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}},
}


def install(app: FastAPI) -> None:
    """Makes `app.openapi()` describe every route."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["Error"] = _ERROR
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
            for endpoint in Endpoint:
                model = endpoint.schema.json_schema(ref_template=_REF)
                schemas |= model.pop("$defs", {})
                schemas[model["title"]] = model
                document["paths"][str(endpoint)] = {"post": _operation(endpoint)}
            for operation in (operation for methods in document["paths"].values() for operation in methods.values()):
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = _FAILURE
            app.openapi_schema = document
        caller = current.get(None)
        return app.openapi_schema if caller is None else _shown(app.openapi_schema, caller)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _shown(document: dict[str, Any], caller: RequestContext) -> dict[str, Any]:
    """What of it the caller may know: without the chains of others, and without what only those refer to."""
    if caller.chains is None:
        return document
    paths = {path: operations for path, operations in document["paths"].items() if _is_open(path, caller)}
    every, shown = document["components"]["schemas"], {}
    unseen = _references(paths)
    while unseen:
        name = unseen.pop()
        shown[name] = every[name]
        unseen |= _references(every[name]) - shown.keys()
    return {**document, "paths": paths, "components": {**document["components"], "schemas": shown}}


def _is_open(path: str, caller: RequestContext) -> bool:
    chain = _CHAIN.match(path)
    return chain is None or caller.allows_chain(chain[1])


def _references(part: Any) -> set[str]:
    return {name.decode() for name in _REFERENCE.findall(orjson.dumps(part))}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    name = endpoint.schema.json_schema()["title"]
    content = {"application/json": {"schema": {"type": "object"}}}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "tags": ["openai"],
        "operationId": endpoint.name.lower(),
        "summary": endpoint.summary.removesuffix("."),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=name)}}},
        },
        "responses": {
            "200": {"description": "The engine's answer, in OpenAI's form.", "content": content},
        },
    }
