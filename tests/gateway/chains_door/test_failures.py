"""What a client of the chains door sees when a run fails, and what a run sees when its client leaves."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.errors import ContextLengthExceeded, GatewayError, NoReplica, StreamInterrupted
from tests.gateway.chains_door.door import RUNS, STREAMS, TURN, Door, request
from tests.gateway.doors import raw_post, sse
from tests.gateway.scripted_path import Script


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("error", [NoReplica("Nobody."), ContextLengthExceeded("Too long."), StreamInterrupted("Cut.")])
async def test_a_failure_before_the_first_event_has_its_status(door: Door, run: str, error: GatewayError) -> None:
    door.path.reply = lambda call: error
    response = await door.post(f"/chat/{run}", request(run))
    assert response.status_code == error.status
    assert response.json() == error.payload()


@pytest.mark.parametrize("run", RUNS)
async def test_unknown_model(door: Door, run: str) -> None:
    response = await door.post(f"/chat/{run}", request(run, config={"configurable": {"model": "nope"}}))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("run", STREAMS)
async def test_a_failure_in_a_stream_is_an_error_event(door: Door, run: str) -> None:
    door.path.reply = lambda call: Script(tokens=["Once", StreamInterrupted("The engine went away.")])
    events = sse((await door.post(f"/chat/{run}", request(run))).text)
    assert json.loads(events[-1][1]) == {"status_code": 502, "message": "The engine went away."}
    assert [name for name, _ in events if name in ("error", "end")] == ["error"]
    with pytest.raises(httpx.HTTPStatusError) as failure:
        async for _ in door.chain().astream(TURN):
            pass
    assert failure.value.response.status_code == 502


@pytest.mark.parametrize("run", RUNS)
async def test_a_defect_tells_nothing(door: Door, run: str, caplog: pytest.LogCaptureFixture) -> None:
    response = await door.post(f"/defect/{run}", request(run, "early"))
    assert response.status_code == 500
    assert "hunter2" not in response.text
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("run", STREAMS)
async def test_a_defect_in_a_stream_tells_nothing(door: Door, run: str, caplog: pytest.LogCaptureFixture) -> None:
    response = await door.post(f"/defect/{run}", request(run, "late"))
    assert sse(response.text)[-1] == ("error", '{"status_code":500,"message":"Internal Server Error"}')
    assert "hunter2" not in response.text
    assert "hunter2" in caplog.text


async def test_the_first_failure_of_a_batch_stops_the_rest(door: Door) -> None:
    hold = asyncio.Event()

    def reply(call: Any) -> Script | GatewayError:
        if call.payload["messages"][-1]["content"] == "bad":
            return NoReplica("Nobody.")
        return Script(hold=hold)

    door.path.reply = reply
    response = await door.post("/chat/batch", {"inputs": [TURN, {"input": "bad"}]})
    assert response.status_code == 503
    assert all(answer.closed.is_set() for answer in door.path.answers)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("tokens", [(), ("One",)])
async def test_a_client_that_goes_away_stops_the_engine(door: Door, run: str, tokens: tuple[str, ...]) -> None:
    door.path.reply = lambda call: Script(tokens=tokens, hold=asyncio.Event())
    _, writer = await raw_post(door.url, f"/chains/chat/{run}", json.dumps(request(run)).encode())
    async with asyncio.timeout(5):
        await door.path.called.wait()
        writer.close()
        await door.path.answers[0].closed.wait()
