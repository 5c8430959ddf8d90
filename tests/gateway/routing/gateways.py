"""Gateways with real upstreams behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.doors import served

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def gateway(*urls: str, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """One with these upstreams for the model `m`."""
    upstreams = [{"model": "m", "url": url} for url in urls]
    app = create_app(Settings.load(**{"upstreams": upstreams} | settings))
    async with served(app, lifespan="on") as base, httpx.AsyncClient(base_url=base, timeout=30) as client:
        yield client


async def ask(client: httpx.AsyncClient, text: str = "hi", **fields: object) -> httpx.Response:
    return await client.post(
        "/v1/chat/completions", json=ASK | {"messages": [{"role": "user", "content": text}]} | fields
    )


async def left_out(client: httpx.AsyncClient) -> int:
    """How many replicas of `m` it leaves out."""
    return await _sum(client, 'llmgw_replicas_left_out{model="m"}')


async def upstream_errors(client: httpx.AsyncClient) -> int:
    """How many calls to a replica of `m` have failed."""
    return await _sum(client, "llmgw_upstream_errors_total{")


async def _sum(client: httpx.AsyncClient, metric: str) -> int:
    lines = (await client.get("/metrics")).text.splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith(metric)))
