"""A master that becomes a replica without ending anybody's connection, and an address that leads to another one."""

import asyncio
from datetime import UTC, datetime

from redis.asyncio import Redis

from gateway import redis_address
from gateway.context import RequestContext
from gateway.limits import usage
from gateway.limits.usage import Ledger
from gateway.metrics import Metrics
from gateway.upstream.usage import Usage
from tests.gateway.redis_faults.proxy import proxy
from tests.gateway.redis_faults.servers import Server, server
from tests.polling import eventually

WHO = RequestContext("r-1", "team", "key", door="v1")


async def test_usage_goes_to_the_new_master(tmp_path):
    words = ("--save", "", "--repl-diskless-sync-delay", "0")
    with server(tmp_path / "a", *words) as old, server(tmp_path / "b", *words) as new:
        leads_to = old

        async def dial():
            return await asyncio.open_connection("127.0.0.1", leads_to.port)

        async with proxy(dial) as wire, redis_address.client(wire.url, timeout_s=2.0) as redis:
            ledger = Ledger(redis, Metrics())

            async def flushed(to: Server, requests: int) -> bool:
                await ledger.flush()
                return await _counted(to) == requests

            ledger.open(WHO, "m", None)(Usage(1, 1))
            await eventually(lambda: flushed(old, 1))
            with old.blocking() as demoted:
                demoted.execute_command("REPLICAOF", "127.0.0.1", new.port)
            leads_to = new
            ledger.open(WHO, "m", None)(Usage(1, 1))
            await eventually(lambda: flushed(new, 1))


async def _counted(at: Server) -> int:
    today = datetime.now(UTC).date()
    async with Redis.from_url(at.url) as redis:
        return sum(row.requests for row in await usage.read(redis, today, today))
