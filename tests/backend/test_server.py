import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from backend.engines import engines
from backend.engines.base import Engine, Launch, Load, Place
from backend.ports import LOOPBACK, free_port
from backend.server import EngineFailed, EngineServer
from backend.spec import ModelSpec


class Script(Engine):
    """An engine that is a shell script: what a broken engine looks like to its replica."""

    tasks = frozenset({"chat"})

    def __init__(self, script: str) -> None:
        self._argv = ("sh", "-c", script)

    def launch(self, spec: ModelSpec, place: Place) -> Launch:
        return Launch(self._argv, {"GREETING": "from the environment"})

    def load(self, metrics: str) -> Load:
        return Load()

    def capabilities(self, spec: ModelSpec) -> tuple[str, ...]:
        return ()

    def memory(self, spec: ModelSpec) -> int:
        return 0


async def test_an_engine_that_dies_shows_its_last_words(
    default_models: dict[str, ModelSpec], engine_environment: Path
) -> None:
    spec = default_models["chat"]
    engine = Script('echo "the reason: $GREETING" >&2; exit 3')
    with pytest.raises(EngineFailed, match=r"exited with status 3: the reason: from the environment"):
        await EngineServer.start(spec, engine, Place(LOOPBACK, free_port(), threads=1))
    logs = list((engine_environment / "logs").glob(f"{spec.name}-*.log"))
    assert any("the reason: from the environment" in log.read_text() for log in logs)


@pytest.mark.parametrize("fault", ["full", "absent"])
async def test_an_engine_whose_log_cannot_be_written_goes_on(
    default_models: dict[str, ModelSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    spec, place = default_models["chat"], Place(LOOPBACK, free_port(), threads=1)
    monkeypatch.setenv("LLMGW_HOME", str(tmp_path))
    if fault == "full":
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / f"{spec.name}-{place.port}.log").symlink_to("/dev/full")
    else:
        (tmp_path / "logs").touch()
    with pytest.raises(EngineFailed, match=r"exited with status 3: the end"):
        await EngineServer.start(spec, Script("yes | head -c 1000000; echo the end; exit 3"), place)


async def test_an_engine_that_is_never_healthy_is_stopped(default_models: dict[str, ModelSpec]) -> None:
    spec = default_models["chat"].model_copy(update={"start_timeout_s": 0.5})
    with pytest.raises(EngineFailed, match=r"not healthy within 0\.5 s: loading"):
        await EngineServer.start(spec, Script("echo loading; sleep 300"), Place(LOOPBACK, free_port(), threads=1))
    assert not [child for child in psutil.Process().children(recursive=True) if "sleep" in child.name()]


async def test_a_killed_engine_fails_its_health_check(default_models: dict[str, ModelSpec]) -> None:
    spec = default_models["embeddings"]
    server = await EngineServer.start(spec, engines()[spec.engine], Place(LOOPBACK, free_port(), threads=1))
    try:
        await server.check()
        (engine,) = (
            p
            for p in psutil.Process().children(recursive=True)
            if server.url[-5:] in p.cmdline()[-20:] and "-S" not in p.cmdline()
        )
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="exited with status"):
            await server.watch()
        with pytest.raises(EngineFailed, match="exited with status 137"):
            await server.check()
    finally:
        await server.stop()


class Alive:
    """A process that has not ended."""

    running = True


@pytest.mark.parametrize("well", [True, False])
async def test_an_engine_that_tells_no_load_is_busy_while_it_is_healthy(
    monkeypatch: pytest.MonkeyPatch, engine_environment: Path, *, well: bool
) -> None:
    monkeypatch.setattr("backend.server.LOAD_TIMEOUT", aiohttp.ClientTimeout(total=0.1))

    async def health(_: web.Request) -> web.Response:
        return web.Response(status=200 if well else 503)

    async def metrics(_: web.Request) -> web.Response:
        await asyncio.sleep(300)
        raise AssertionError

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    async with TestServer(app, handler_cancellation=True) as there:
        engine = EngineServer(Script(""), Alive(), str(there.make_url("")).rstrip("/"))  # type: ignore[arg-type]
        async with engine.http:
            assert await engine.busy() is well
