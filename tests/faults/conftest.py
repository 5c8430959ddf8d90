"""A gateway in front of engines that fail; each test says how."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.faults import doors
from tests.faults.faults import BEFORE, MIDDLE, STRANGE
from tests.faults.upstream import Cluster, cluster
from tests.gateway.doors import served

# Long enough for whatever comes at all, on a machine that is busy.
PATIENCE_S = 1.5
TIMEOUTS = dict.fromkeys(("connect", "first_byte", "first_token", "idle"), PATIENCE_S)


def settings(**fields: Any) -> Settings:
    return Settings.load(**{f"{name}_timeout_s": seconds for name, seconds in TIMEOUTS.items()} | fields)


def upstreams(engines: Cluster, **models: dict[str, Any]) -> list[dict[str, Any]]:
    """Every engine as a replica of every model."""
    more = {"tells_usage": True}
    return [{"model": model, "url": url, **more, **fields} for model, fields in models.items() for url in engines.urls]


def _replicas(engines: Cluster) -> list[dict[str, Any]]:
    """For every fault and door models of its own, since a gateway remembers how the replicas of each have done."""
    alone = replace(engines, urls=engines.urls[:1])
    replicas = []
    for name in (*BEFORE, *MIDDLE, *STRANGE):
        for door in (*doors.DOORS, doors.NONE):
            pair, plain, lone = (doors.model(kind, name, door) for kind in ("pair", "plain", "alone"))
            replicas += upstreams(engines, **{pair: {"continues": True}, plain: {}})
            replicas += upstreams(alone, **{lone: {"continues": True}})
    return replicas


def _key(model: str) -> dict[str, Any]:
    digest = hashlib.sha256(doors.key(model).encode()).hexdigest()
    return {"name": model, "tenant": "t", "hash": f"sha256:{digest}", "models": [model]}


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[tuple[str, Cluster]]:
    """`pair` models are served by two engines that go on with each other's answers, `plain` ones by two that do not,
    `alone` ones by one."""
    async with cluster() as engines:
        replicas = _replicas(engines)
        keys = [_key(model) for model in dict.fromkeys(replica["model"] for replica in replicas)]
        async with served(create_app(settings(upstreams=replicas, keys=keys))) as base:
            yield base, engines


@pytest.fixture
def base(running: tuple[str, Cluster]) -> str:
    return running[0]


@pytest.fixture
def engines(running: tuple[str, Cluster]) -> Cluster:
    running[1].expect()
    return running[1]
