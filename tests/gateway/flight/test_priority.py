"""Requests of both priorities for the same answer."""

import asyncio
import json

from tests.gateway.cache.conftest import whole
from tests.gateway.flight.conftest import STREAM, WHOLE
from tests.polling import eventually

BATCH = {"x-llmgw-priority": "batch"}


async def test_an_interactive_request_does_not_wait_for_a_batch_one_that_has_not_begun(pair, engine):
    askers = [pair[0].ask(BATCH, **WHOLE)]
    await eventually(lambda: engine.asked == 1)
    askers.append(pair[0].ask(**WHOLE))
    await eventually(lambda: engine.asked == 2)
    late = [pair[0].ask(BATCH, **WHOLE), pair[0].ask(**WHOLE)]
    engine.go.set()
    assert json.loads(await askers[0].done()) == whole(1) | {"padding": ""}
    assert json.loads(await askers[1].done()) == whole(2) | {"padding": ""}
    assert [asker.cache for asker in askers] == ["miss", "miss"]
    await asyncio.gather(*(asker.done() for asker in late))
    assert {asker.cache for asker in late} <= {"shared", "hit"}
    assert engine.asked == 2


async def test_it_shares_one_that_has_begun(pair, engine):
    first = pair[0].ask(BATCH, **STREAM)
    await first.began.wait()
    second = pair[0].ask(**STREAM)
    await second.began.wait()
    engine.go.set()
    assert await first.done() == await second.done() == engine.text(1)
    assert second.cache == "shared"
