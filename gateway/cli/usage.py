"""`llmgw usage`: what each key has used, as a table or CSV."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from redis.exceptions import RedisError

from gateway import redis_address
from gateway.cli.keys import redis_url
from gateway.cli.tables import table
from gateway.limits.usage import UsageRow, read, write_csv
from gateway.settings import ConfigError, Settings


def report(config: Path | None, first: date | None, last: date | None, *, csv: bool) -> str:
    """The rows of these days (UTC); of the last day alone when no first is given, which is today when none is.

    Raises:
        ConfigError: there is no Redis, or it does not answer.
    """
    last = last or datetime.now(UTC).date()
    url = redis_url(Settings.load(config=config))
    try:
        rows = asyncio.run(_read(url, first or last, last))
    except RedisError as error:
        raise ConfigError(f"Redis does not do it: {redis_address.explain(url, error)}") from error
    return write_csv(rows) if csv else table(UsageRow._fields, [[str(cell) for cell in row] for row in rows])


async def _read(url: str, first: date, last: date) -> Sequence[UsageRow]:
    async with redis_address.client(url, timeout_s=5) as redis:
        return await read(redis, first, last)
