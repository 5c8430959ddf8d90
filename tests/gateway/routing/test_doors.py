"""Replicas that fail, come back, flap and are slow, through the door, on real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.gateway.raw_server import (
    DONE,
    END,
    STREAM_HEAD,
    Script,
    chunk,
    sized,
    then_close,
    token,
)
from tests.gateway.records import join
from tests.gateway.routing.gateways import ASK, ask, gateway, left_out, upstream_errors
from tests.polling import eventually

ANSWER = sized(b'{"id":"c-1","choices":[]}')
FAILED = sized(b'{"error":{"message":"broken"}}', "500 Internal Server Error")
STREAM = STREAM_HEAD + chunk(token("hello")) + chunk(token("", "stop")) + chunk(DONE) + END


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Engine:
    """An upstream on a port of its own that may be down.

    Attributes:
        answer: what it says while it is up.
        asked: how many requests it has had.
    """

    def __init__(self, answer: bytes | Script = ANSWER) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.answer = answer
        self.asked = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /health"):
                    writer.write(sized(b"{}"))
                    continue
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-len"))
                await reader.readexactly(length)
                self.asked += 1
                if isinstance(self.answer, bytes):
                    writer.write(self.answer)
                else:
                    await self.answer(reader, writer)
        self._writers.discard(writer)
        writer.close()


@contextlib.asynccontextmanager
async def engines(*answers: bytes | Script) -> AsyncIterator[Sequence[Engine]]:
    made = [Engine(answer) for answer in answers]
    try:
        for engine in made:
            await engine.up()
        yield made
    finally:
        for engine in made:
            await engine.down()


@pytest.mark.parametrize("policy", ["affinity", "balanced", "round-robin"])
async def test_a_dead_replica_is_left_out_and_comes_back(policy):
    async with engines(ANSWER, ANSWER) as (well, dead), gateway(well.url, dead.url, routing_policy=policy) as client:
        await dead.down()
        for number in range(40):
            assert (await ask(client, f"question {number}")).status_code == 200
        assert (dead.asked, await left_out(client)) == (0, 1)
        await dead.up()

        async def is_asked() -> bool:
            assert (await ask(client, "again")).status_code == 200
            return dead.asked > 0

        await eventually(is_asked)
        assert await left_out(client) == 0


async def test_no_request_finds_out_that_a_dead_replica_is_still_dead(monkeypatch):
    monkeypatch.setattr("gateway.routing.watch.WATCH_S", 0.1)
    monkeypatch.setattr("gateway.routing.breaker.OPEN_S", 0.2)
    async with engines(ANSWER, ANSWER) as (well, dead), gateway(well.url, dead.url) as client:
        await dead.down()
        failed = []
        for number in range(80):
            assert (await ask(client, f"question {number}")).status_code == 200
            failed.append(await upstream_errors(client))
            await asyncio.sleep(0.02)
        # By then its health was asked for, and its breaker's first time would be over for long.
        assert failed[-1] == failed[len(failed) // 2] > 0


async def test_one_that_answers_with_errors_is_left_out_and_probed_one_request_at_a_time():
    in_turns = {"routing_policy": "round-robin"}
    async with engines(ANSWER, FAILED) as (well, bad), gateway(well.url, bad.url, **in_turns) as client:
        statuses = []
        while not await left_out(client):
            statuses.append((await ask(client)).status_code)
        assert (set(statuses), bad.asked) == ({200}, 3)
        bad.answer = ANSWER

        async def is_back() -> bool:
            return (await ask(client)).status_code == 200 and not await left_out(client)

        await eventually(is_back)
        before = bad.asked
        assert {(await ask(client)).status_code for _ in range(10)} == {200}
        assert bad.asked == before + 5


async def test_one_that_flaps_costs_few_requests_and_is_back_soon_after_it_is_well():
    async with engines(ANSWER, ANSWER) as (well, flapping), gateway(well.url, flapping.url) as client:
        for round_ in range(3):
            await flapping.down()
            for number in range(30):
                assert (await ask(client, f"{round_} {number}")).status_code == 200
            await flapping.up()
        assert 1 <= await upstream_errors(client) <= 10

        async def is_back() -> bool:
            await ask(client)
            return not await left_out(client)

        await eventually(is_back)


async def test_a_stream_that_breaks_off_counts_and_one_whose_client_leaves_does_not():
    cut = then_close(STREAM_HEAD + chunk(token("hello")))
    async with engines(STREAM, cut) as (well, bad), gateway(well.url, bad.url, routing_policy="round-robin") as client:
        while not await left_out(client):
            await ask(client, stream=True)
        assert bad.asked == 3
    forever = asyncio.Event()

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(token("hello")))
        await forever.wait()

    async with engines(stalls) as (slow,), gateway(slow.url) as client:
        for _ in range(10):
            async with client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as response:
                await anext(response.aiter_bytes())
        assert (slow.asked, await left_out(client)) == (10, 0)
        forever.set()


async def test_a_slow_replica_gets_fewer_requests_and_nobody_waits_for_it():
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        writer.write(ANSWER)

    async with engines(ANSWER, slowly) as (fast, slow), gateway(fast.url, slow.url) as client:
        for number in range(200):
            assert (await ask(client, f"question {number}")).status_code == 200
        assert 1 <= slow.asked <= 20
        assert fast.asked == 200 - slow.asked


async def test_a_reserve_is_asked_when_the_others_cannot_be():
    async with engines(ANSWER, ANSWER) as (first, reserve):
        upstreams = [{"model": "m", "url": reserve.url, "priority": 1}, {"model": "m", "url": first.url}]
        async with gateway(upstreams=upstreams) as client:
            for number in range(20):
                await ask(client, f"question {number}")
            assert (first.asked, reserve.asked) == (20, 0)
            await first.down()
            assert {(await ask(client)).status_code for _ in range(5)} == {200}
            assert reserve.asked == 5


async def test_two_gateways_share_an_open_breaker(redis_server):
    async with engines(ANSWER, ANSWER) as (well, dead):
        shared = {"redis_url": redis_server.url, "routing_policy": "round-robin"}
        async with gateway(well.url, dead.url, **shared) as one, gateway(well.url, dead.url, **shared) as other:
            for number in range(10):  # each knows both
                await ask(other, f"question {number}")
            await dead.down()
            asked = 0
            while not await left_out(one):
                assert (await ask(one, f"question {(asked := asked + 1)}")).status_code == 200

            async def told() -> bool:
                return await left_out(other) == 1

            await eventually(told)
            assert await upstream_errors(other) == 0, "it did not find out by itself"
            await dead.up()

            async def both_back() -> bool:
                await ask(one)
                await ask(other)
                return not await left_out(one) and not await left_out(other)

            await eventually(both_back)


async def test_without_redis_a_gateway_finds_out_by_itself(redis_server):
    async with engines(ANSWER, ANSWER) as (well, dead):
        in_turns = {"redis_url": redis_server.url, "routing_policy": "round-robin"}
        async with gateway(well.url, dead.url, **in_turns) as client:
            await ask(client)
            redis_server.kill()
            await dead.down()
            for number in range(20):
                assert (await ask(client, f"question {number}")).status_code == 200
            assert await left_out(client) == 1
            await dead.up()

            async def is_back() -> bool:
                await ask(client)
                return not await left_out(client)

            await eventually(is_back)
            redis_server.start()


async def test_replicas_of_the_directory_are_chosen_by_the_load_that_they_tell(redis_server, redis):
    async with (
        engines(ANSWER, ANSWER) as (idle, busy),
        gateway(upstreams=(), redis_url=redis_server.url, routing_policy="balanced") as client,
    ):
        await join(redis, "m-busy", url=busy.url, measured_at=1.0)
        await join(redis, "m-idle", url=idle.url, measured_at=1.0)

        async def both() -> bool:
            return 'llmgw_replicas{model="m"} 2.0' in (await client.get("/metrics")).text

        await eventually(both)
        while not (idle.asked and busy.asked):
            await ask(client)
        await join(redis, "m-busy", url=busy.url, running=5000, waiting=900, measured_at=2.0)

        async def noticed() -> bool:
            before = busy.asked
            for _ in range(20):
                await ask(client)
            return busy.asked == before

        await eventually(noticed)
