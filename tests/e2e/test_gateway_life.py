"""`llmgw gateway` as processes, in front of an engine of the test's own: its end, its dead, new settings."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.e2e.stack import free_port
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, RawServer, chunk, raw_server, sized, token
from tests.polling import eventually

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'


class Engine:
    """Streams begin at once and end when they may; other answers are there at once."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.server = RawServer()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b'"stream"' not in self.server.requests[-1]:
            writer.write(sized(ANSWER))
            return
        writer.write(STREAM_HEAD + chunk(token("begun")))
        await self.may_end.wait()
        writer.write(chunk(token("ended", "stop") + DONE) + END)


LLMGW = ("-m", "gateway.cli")
# New workers that cannot serve are given up sooner.
HASTY = ("-c", "from gateway.cli import main, supervisor; supervisor._READY_S = 5.0; main.app()")


class Gateway:
    """
    Args:
        program: Python's arguments for `llmgw`.
        section: of the cluster file.
    """

    def __init__(self, folder: Path, program: Sequence[str] = LLMGW, **section: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "cluster.yaml"
        self.log = folder / "log"
        self.section = section
        self.configure()
        argv = [sys.executable, *program, "gateway", "--config", str(self.config), "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LLMGW_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, env=environment, stderr=log)

    def configure(self, **section: Any) -> None:
        self.section |= section
        self.write(yaml.safe_dump({"gateway": self.section}))

    def write(self, text: str) -> None:
        """As an editor does: the old file or the new one, and nothing in between."""
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children() if lives(child)]

    def logged(self, words: str) -> int:
        return self.log.read_text().count(words)

    async def health(self) -> int:
        """The status of /health/ready on a connection of its own; 0 when there is none."""
        try:
            async with httpx.AsyncClient(base_url=self.url) as client:
                return (await client.get("/health/ready")).status_code
        except httpx.TransportError:
            return 0

    async def is_ready(self) -> bool:
        return await self.health() == 200


@asynccontextmanager
async def gateway(
    engine: Engine, folder: Path, program: Sequence[str] = LLMGW, **section: Any
) -> AsyncIterator[Gateway]:
    async with raw_server(engine.answer) as server:
        engine.server = server
        upstreams = [{"model": "m", "url": server.url}]
        started = Gateway(folder, program, upstreams=upstreams, access_log=False, **section)
        try:
            await eventually(started.is_ready, within=60)
            yield started
        finally:
            engine.may_end.set()
            started.process.kill()
            started.process.wait()


class Stream:
    """A stream that is open: its first event has come."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.text = ""
        self.begun = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> str:
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=60) as client,
            client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer,
        ):
            async for part in answer.aiter_text():
                self.text += part
                self.begun.set()
        return self.text


async def open_stream(url: str) -> Stream:
    stream = Stream(url)
    await asyncio.wait_for(stream.begun.wait(), 30)
    return stream


def lives(process: psutil.Process) -> bool:
    """Whether it neither has ended nor does so while it is looked at."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def worker_of(gateway: Gateway, engine: Engine) -> Callable[[], list[psutil.Process]]:
    """Those workers that have a connection to the engine open."""

    def connected() -> list[psutil.Process]:
        return [
            worker
            for worker in gateway.workers()
            if any(c.raddr and c.raddr.port == engine.server.port for c in worker.net_connections())
        ]

    return connected


async def test_it_says_that_it_leaves_serves_on_and_finishes_what_is_open(tmp_path):
    engine = Engine()
    async with gateway(engine, tmp_path, drain_notice_s=5) as running:
        stream = await open_stream(running.url)
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            assert "connection" not in (await client.post(CHAT, json=BODY)).headers
            running.process.send_signal(signal.SIGTERM)

            async def leaving() -> bool:
                return await running.health() == 503

            await eventually(leaving)
            answer = await client.post(CHAT, json=BODY)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            answer = await client.post(CHAT, json=BODY)  # on a new connection
            assert answer.status_code == 200

        async def listens_no_more() -> bool:
            return await running.health() == 0

        await eventually(listens_no_more, within=30)
        assert running.process.poll() is None
        engine.may_end.set()
        assert (await stream.task).endswith("data: [DONE]\n\n")
        assert running.process.wait(30) == 0


async def test_an_open_stream_does_not_keep_it_for_ever(tmp_path):
    engine = Engine()
    async with gateway(engine, tmp_path, drain_notice_s=0, drain_timeout_s=1) as running:
        stream = await open_stream(running.url)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 30) == 0
        await asyncio.gather(stream.task, return_exceptions=True)
        assert "[DONE]" not in stream.text


async def test_a_worker_that_dies_takes_only_its_own_streams_with_it(tmp_path):
    engine = Engine()
    async with gateway(engine, tmp_path) as running:
        connected = worker_of(running, engine)
        streams = []
        while len(connected()) < 2:  # the kernel chooses the worker
            streams.append(await open_stream(running.url))
            assert len(streams) < 60
        connected()[0].kill()
        await eventually(lambda: any(stream.task.done() for stream in streams))
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            assert (await client.post(CHAT, json=BODY)).status_code == 200
        engine.may_end.set()
        ends = await asyncio.gather(*(stream.task for stream in streams), return_exceptions=True)
        whole = [end for end in ends if isinstance(end, str) and end.endswith("data: [DONE]\n\n")]
        cut = [end for end in ends if isinstance(end, httpx.TransportError)]
        assert whole
        assert cut
        assert len(whole) + len(cut) == len(streams)


class Load:
    """Clients that ask again and again, each on a connection that it keeps."""

    def __init__(self, url: str, clients: int) -> None:
        self.answers: list[int | str] = []
        self._stop = False
        self._tasks = [asyncio.create_task(self._client(url)) for _ in range(clients)]

    async def _client(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while not self._stop:
                try:
                    self.answers.append((await client.post(CHAT, json=BODY)).status_code)
                except httpx.HTTPError as error:
                    self.answers.append(repr(error))

    async def stop(self) -> list[int | str]:
        self._stop = True
        await asyncio.gather(*self._tasks)
        return self.answers


async def test_one_that_was_suspended_goes_on(tmp_path):
    """As by Ctrl-Z, or with the machine: twice, for longer than a turn of the supervisor's."""
    engine = Engine()
    async with gateway(engine, tmp_path) as running:
        supervisor = psutil.Process(running.process.pid)
        for _ in range(2):
            supervisor.suspend()
            await eventually(lambda: supervisor.status() == psutil.STATUS_STOPPED)
            await asyncio.sleep(0.5)
            supervisor.resume()
            killed, other = running.workers()
            killed.kill()
            await eventually(lambda gone=killed: gone not in running.workers() and len(running.workers()) == 2)
            assert other in running.workers()
        assert await running.is_ready()
        assert "Traceback" not in running.log.read_text()
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 30) == 0


@pytest.mark.parametrize("told", ["edited", "SIGHUP"])
async def test_new_settings_come_without_a_failed_request(tmp_path, told):
    engine = Engine()
    async with gateway(engine, tmp_path) as running:
        before = running.workers()
        stream = await open_stream(running.url)
        load = Load(running.url, 8)
        await eventually(lambda: len(load.answers) > 50)
        if told == "edited":
            running.configure(upstreams=[*running.section["upstreams"], {"model": "n", "url": engine.server.url}])
        else:
            running.process.send_signal(signal.SIGHUP)
        await eventually(lambda: running.logged("new workers have taken over"), within=60)
        # The one with the stream stays until it has ended, the other goes.
        await eventually(lambda: len(running.workers()) == 3, within=30)
        assert set(await load.stop()) == {200}
        engine.may_end.set()
        assert (await stream.task).endswith("data: [DONE]\n\n")
        await eventually(lambda: len(running.workers()) == 2)
        assert not set(before) & set(running.workers())
        if told == "edited":
            async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
                assert (await client.post(CHAT, json=BODY | {"model": "n"})).status_code == 200


async def test_a_stream_that_outlives_new_settings_does_not_outlive_the_gateway_for_long(tmp_path):
    engine = Engine()
    async with gateway(engine, tmp_path, drain_notice_s=0, drain_timeout_s=1) as running:
        stream = await open_stream(running.url)
        running.process.send_signal(signal.SIGHUP)
        await eventually(lambda: running.logged("new workers have taken over"), within=60)
        await eventually(lambda: len(running.workers()) == 3)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 30) == 0
        await asyncio.gather(stream.task, return_exceptions=True)
        assert "[DONE]" not in stream.text


async def test_a_key_that_is_added_and_a_setting_that_is_changed_hold(tmp_path):
    engine = Engine()
    async with gateway(engine, tmp_path) as running:
        digest = hashlib.sha256(b"sk-llmgw-new").hexdigest()
        running.configure(keys=[{"name": "new", "tenant": "t", "hash": f"sha256:{digest}"}], max_body_bytes=1000)

        async def statuses() -> list[int]:
            async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
                without = await client.post(CHAT, json=BODY)
                client.headers["authorization"] = "Bearer sk-llmgw-new"
                long = BODY | {"messages": [{"role": "user", "content": "x" * 2000}]}
                return [
                    without.status_code,
                    *[(await client.post(CHAT, json=body)).status_code for body in (BODY, long)],
                ]

        async def hold() -> bool:
            return await statuses() == [401, 200, 413]

        await eventually(hold, within=60)


BAD = {
    "no YAML": "gateway: [",
    "a setting that does not exist": "gateway: {no_such_setting: 1}",
    "what only a restart can change": "gateway: {workers: 5}",
}


async def test_settings_that_cannot_be_used_change_nothing_and_are_one_line(tmp_path):
    engine, said = Engine(), "everything stays as it was"
    async with gateway(engine, tmp_path) as running:
        before, lines = running.workers(), 0
        for bad in BAD.values():
            running.write(bad)
            await eventually(lambda lines=lines: running.logged(said) == lines + 1)
            running.process.send_signal(signal.SIGHUP)
            await eventually(lambda lines=lines: running.logged(said) == lines + 2)
            lines += 2
            assert running.workers() == before
            assert "Traceback" not in running.log.read_text()
            async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
                assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_new_workers_that_know_no_replicas_leave_the_old_ones(tmp_path):
    engine = Engine()
    async with gateway(engine, tmp_path, HASTY) as running:
        before = running.workers()
        load = Load(running.url, 4)
        running.configure(redis_url=f"redis://127.0.0.1:{free_port()}")
        await eventually(lambda: running.logged("new workers are started"))
        await eventually(lambda: running.logged("everything stays as it was: they do not serve within"), within=90)
        await eventually(lambda: len(running.workers()) == 2)
        assert running.workers() == before
        assert set(await load.stop()) == {200}
