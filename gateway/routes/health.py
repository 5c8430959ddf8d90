"""For probes and scrapers: is the process alive, can it serve, and how is it doing."""

from typing import Any

from fastapi import APIRouter, Response

from gateway.completion.catalog import Catalog
from gateway.context import current
from gateway.errors import PermissionDenied
from gateway.keys.ring import KeyRing
from gateway.metrics import Metrics
from gateway.request_log import RequestLog
from gateway.routing.directory import Directory
from gateway.server.leaving import Presence


def router(
    directory: Directory,
    catalog: Catalog,
    ring: KeyRing,
    metrics: Metrics,
    request_log: RequestLog,
    presence: Presence,
) -> APIRouter:
    routes = APIRouter(tags=["operations"])

    @routes.get("/health/live")
    async def live() -> dict[str, str]:
        """200 as long as the process answers."""
        return {"status": "live"}

    @routes.get("/health/ready")
    async def ready(response: Response) -> dict[str, Any]:
        """200 when the keys are known, Redis has answered or is away, no configured model lacks its replica, and the
        gateway does not stop."""
        missing = len(catalog.missing())  # and not which: this route is open to all
        is_ready = directory.redis_state != "unknown" and ring.known and not missing
        response.status_code = 200 if is_ready and not presence.leaving else 503
        status = "leaving" if presence.leaving else "ready" if is_ready else "starting"
        return {"status": status, "redis": directory.redis_state, "models_without_replica": missing}

    @routes.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Prometheus text, summed over this gateway's workers; for keys that are not restricted to some models."""
        if current.get().models is not None:
            raise PermissionDenied("This key may not read metrics: they tell of other tenants and models.")
        request_log.flush()
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
