"""What ends an attempt that takes too long, each kind of time by itself and by model, and a client's own deadline."""

import asyncio
import socket
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from gateway.completion.endpoint import Endpoint
from gateway.completion.errand import Errand
from gateway.completion.request import Call
from gateway.context import RequestContext
from tests.faults.faults import says_nothing, sends_headers_only, sends_pings_only, stalls_after
from tests.faults.test_failover import ASK, CHAT, STREAM, gateway, post, text_of
from tests.faults.upstream import TEXT, TOKENS, Fault, cluster

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")

# Too long for a test, and too short for anything to come of it.
EVER, SOON = 3600.0, 0.3
PATIENT = dict.fromkeys(("connect", "first_byte", "first_token", "idle", "total"), EVER)


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("first_byte", says_nothing, 0),
        ("first_token", sends_headers_only, 0),
        ("first_token", sends_pings_only, 0),
        ("idle", stalls_after(2), 2),
        ("total", stalls_after(2), 2),
        ("total", says_nothing, 0),
    ],
)
async def test_each_time_of_a_model_ends_what_it_is_for(name: str, fault: Fault, said: int) -> None:
    async with cluster(engines=1) as engines:
        engines.expect(fault)
        more = {"model": "n", "url": engines.urls[0]}
        async with gateway(engines, more, timeouts={"m": PATIENT | {name: SOON}, "n": PATIENT}) as client:
            answer = await post(client, STREAM)
            assert "deadline_exceeded" in answer.text
            assert b"[DONE]" not in answer.content
            assert (answer.status_code, len(engines.asked)) == (200 if said else 504, 1)
            if said:
                assert text_of(answer) == "".join(TOKENS[:said])
            # Another model is not held to it.
            engines.expect(fault)
            waiting = asyncio.create_task(post(client, STREAM, "n"))
            await asyncio.sleep(3 * SOON)
            assert not waiting.done()
            waiting.cancel()


async def ask(client: httpx.AsyncClient, body: dict[str, Any], timeout_ms: int) -> httpx.Response:
    return await client.post(CHAT, json={"model": "m"} | body, headers={"x-llmgw-timeout-ms": str(timeout_ms)})


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
async def test_a_client_may_give_its_request_less_time_and_no_replica_is_blamed(body: dict[str, Any]) -> None:
    async with cluster() as engines, gateway(engines, timeouts={"m": PATIENT}) as client:
        for _ in range(5):
            engines.expect(says_nothing)
            answer = await ask(client, body, 200)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
            assert (len(engines.asked), answer.headers["x-llmgw-attempts"]) == (1, "1")
        assert (await ask(client, body, 60_000)).status_code == 200
        assert 'llmgw_replicas_left_out{model="m"} 1' not in (await client.get("/metrics")).text


async def test_a_deadline_that_ends_before_there_is_a_connection_is_one() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy, ExitStack() as others:
        for _ in range(4):  # more than the kernel accepts in its place
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(busy.getsockname())
        replica = {"model": "n", "url": f"http://127.0.0.1:{busy.getsockname()[1]}"}
        async with cluster() as engines, gateway(engines, replica, timeouts={"n": PATIENT}) as client:
            answer = await ask(client, ASK | {"model": "n"}, 200)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
            assert 'llmgw_replicas_left_out{model="n"} 1' not in (await client.get("/metrics")).text


async def test_a_stream_ends_at_its_clients_deadline_in_an_error() -> None:
    async with cluster() as engines, gateway(engines, timeouts={"m": PATIENT}) as client:
        engines.expect(stalls_after(3))
        answer = await ask(client, STREAM, 500)
    assert text_of(answer) == "".join(TOKENS[:3])
    assert "deadline_exceeded" in answer.text
    assert b"[DONE]" not in answer.content
    assert len(engines.asked) == 1


async def test_a_client_cannot_give_its_request_more_time() -> None:
    async with cluster() as engines, gateway(engines, timeouts={"m": PATIENT | {"total": SOON}}) as client:
        engines.expect(says_nothing)
        answer = await ask(client, ASK, 3_600_000)
        assert (answer.status_code, len(engines.asked)) == (504, 1)
        assert text_of(await ask(client, STREAM, 3_600_000)) == TEXT


async def test_all_that_a_request_asks_for_has_one_deadline() -> None:
    """A chain's calls, and the models that stand in for each other."""
    context = RequestContext("r", until=asyncio.get_running_loop().time() + 5)
    call = Call.of(Endpoint.CHAT, {"model": "m", **ASK})
    assert {Errand(call, context, total_s, "").until for total_s in (EVER, 60.0)} == {context.until}
    assert Errand(call, context, 1.0, "").until < context.until
