"""For who runs the gateway: what each key has used. Wants a key with `admin`."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.context import current
from gateway.errors import InvalidRequest, PermissionDenied, UsageUnavailable
from gateway.limits.usage import UsageRow, read, write_csv

MAX_DAYS = 366


def router(redis: Redis | None) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["admin"])

    @routes.get("/usage", response_model=list[dict[str, str | int]])
    async def usage(
        first: Annotated[date | None, Query(alias="from", description="first day (UTC); default: `to`")] = None,
        last: Annotated[date | None, Query(alias="to", description="last day (UTC); default: today")] = None,
        form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
    ) -> object:
        """Requests, tokens and milliseconds by day, tenant, key, model and door."""
        if not current.get().admin:
            raise PermissionDenied("This key may not see what others have used; it wants `admin`.")
        last = last or datetime.now(UTC).date()
        rows = await _rows(redis, first or last, last)
        if form == "csv":
            return Response(write_csv(rows), media_type="text/csv")
        return [row._asdict() for row in rows]

    return routes


async def _rows(redis: Redis | None, first: date, last: date) -> list[UsageRow]:
    if not timedelta(0) <= last - first < timedelta(days=MAX_DAYS):
        raise InvalidRequest(f"From `from` to `to` there may be 1 to {MAX_DAYS} days.", param="from")
    if redis is None:
        raise UsageUnavailable("Without Redis nobody counts what is used.")
    try:
        return await read(redis, first, last)
    except (RedisError, OSError, TimeoutError) as error:
        raise UsageUnavailable("Redis cannot tell at the moment what was used. Please try again.") from error
