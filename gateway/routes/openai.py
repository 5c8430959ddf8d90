"""The OpenAI door: `/v1/models`; `completions.py` has the endpoints that answer.

Source: https://platform.openai.com/docs/api-reference
"""

from typing import Any

from fastapi import APIRouter

from gateway.completion.catalog import Catalog
from gateway.context import current
from gateway.routing.pool import Pool


def _entry(pool: Pool, created: int) -> dict[str, Any]:
    return {
        "id": pool.model,
        "object": "model",
        "created": created,
        "owned_by": "llmgw",
        "tasks": sorted(pool.tasks),
        "max_model_len": pool.max_model_len,
    }


def router(catalog: Catalog) -> APIRouter:
    routes = APIRouter(tags=["openai"])

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The models this key may use that have a replica, or get one when they are asked."""
        return {"object": "list", "data": [_entry(pool, catalog.created) for pool in catalog.models(current.get())]}

    @routes.get("/v1/models/{model:path}")
    async def retrieve_model(model: str) -> dict[str, Any]:
        """One model; `tasks` and `max_model_len` are this gateway's additions to OpenAI's fields."""
        return _entry(catalog.model(model, current.get()), catalog.created)

    return routes
