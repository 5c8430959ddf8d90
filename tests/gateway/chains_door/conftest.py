"""One running door for all its tests; each starts with a clean script."""

from collections.abc import AsyncIterator

import pytest

from gateway.bridge.langserve import ServedChain, load
from gateway.routes.chains import router
from gateway.sessions.store import Sessions
from tests.gateway.chains_door.door import EXTRA, Door
from tests.gateway.doors import app, served
from tests.gateway.scripted_path import ScriptedPath


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Door]:
    path = ScriptedPath()
    extra = [ServedChain(name, name, chain) for name, chain in EXTRA.items()]
    async with served(app(router([*load(path, Sessions(None, 60, 10)), *extra]))) as url:
        yield Door(url, path)


@pytest.fixture
def door(running: Door) -> Door:
    running.path.reset()
    return running
