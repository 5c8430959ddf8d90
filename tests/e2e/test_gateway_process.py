"""`llmgw gateway` alone: keys, workers that die, and how it ends. The cluster behind it is the shared stack's."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.e2e.stack import CHAT_MODEL, free_port
from tests.polling import eventually
from tests.repeating_redis import PASSWORD, repeating_redis
from tests.sources import ROOT

KEY = "sk-llmgw-test"


class Gateway:
    def __init__(self, stack, config, *arguments):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = stack.environment | {"LLMGW_REDIS_URL": stack.redis_url}
        argv = [sys.executable, "-m", "gateway.cli", "gateway", "--config", str(config), "--port", str(self.port)]
        self.process = subprocess.Popen([*argv, *arguments], env=environment, stderr=subprocess.DEVNULL)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    async def ready(self) -> bool:
        try:
            async with httpx.AsyncClient(base_url=self.url) as client:
                return (await client.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    path = tmp_path_factory.mktemp("gateway") / "cluster.yaml"
    keys = [{"name": "test", "tenant": "t", "hash": f"sha256:{digest}"}]
    path.write_text(yaml.safe_dump({"gateway": {"keys": keys}, "models": [{"name": CHAT_MODEL}]}))
    return path


@asynccontextmanager
async def running(stack, config):
    gateway = Gateway(stack, config)
    try:
        await eventually(gateway.ready, within=60)
        yield gateway
    finally:
        gateway.process.kill()
        gateway.process.wait()


@pytest.fixture
async def gateway(stack, config):
    """For a test that ends it."""
    async with running(stack, config) as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def shared(stack, config):
    async with running(stack, config) as gateway:
        yield gateway


async def test_serves_the_clusters_models_to_who_has_a_key(shared):
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    async with httpx.AsyncClient(base_url=shared.url, timeout=60) as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 401
        client.headers["authorization"] = f"Bearer {KEY}"
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


async def test_a_worker_that_dies_is_replaced(shared):
    first, second = shared.workers()
    first.kill()
    await eventually(lambda: len(shared.workers()) == 2 and first not in shared.workers())
    assert second.is_running()
    assert await shared.ready()


async def test_metrics_are_summed_over_the_workers(shared):
    async def counted() -> bool:
        async with httpx.AsyncClient(base_url=shared.url, headers={"x-api-key": KEY}) as client:
            text = (await client.get("/metrics")).text
        lines = [line for line in text.splitlines() if 'door="v1",status="404",tenant="t"' in line]
        return any(line.startswith("llmgw_requests_total") and line.endswith(" 20.0") for line in lines)

    for _ in range(20):  # a connection each, so that both workers get some
        async with httpx.AsyncClient(base_url=shared.url, headers={"x-api-key": KEY}) as client:
            await client.get("/v1/models/nope")
    await eventually(counted)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
async def test_no_worker_outlives_it(gateway, how):
    workers = gateway.workers()
    gateway.process.send_signal(how)
    gateway.process.wait(60)
    await eventually(lambda: not any(worker.is_running() for worker in workers))
    assert gateway.process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 0)


def refuse(*arguments: str, folder: Path | None = None, **environment: str) -> str:
    """Runs `llmgw` with arguments that cannot work; returns the one line it says."""
    argv, environment = [sys.executable, "-m", "gateway.cli", *arguments], os.environ | environment
    done = subprocess.run(argv, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def test_a_chain_that_does_not_load_is_one_line_that_names_it(tmp_path):
    shutil.copytree(ROOT / "chains", tmp_path / "chains")
    (tmp_path / "chains" / "broken.py").write_text('"""A chain."""\n\n1 / 0\n')
    line = refuse("gateway", "--port", str(free_port()), folder=tmp_path)
    assert "broken.py: ZeroDivisionError" in line


@pytest.mark.parametrize("command", [["up"], ["keys", "list"], ["usage"]], ids=" ".join)
async def test_what_redis_says_is_told_without_the_password(command):
    ports = ["--port", str(free_port()), "--chat-port", str(free_port())] if command == ["up"] else []
    async with repeating_redis() as url:
        line = await asyncio.to_thread(refuse, *command, *ports, LLMGW_REDIS_URL=url, LLMGW_KEY_SECRET="s" * 32)
    assert "unknown command" in line
    assert PASSWORD not in line


def test_another_address_without_keys_is_refused():
    assert "--insecure" in refuse("gateway", "--host", "0.0.0.0")


def test_a_port_in_use_is_one_clear_line(stack):
    port = str(stack.port)
    assert refuse("gateway", "--port", port).endswith(
        f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another port with --port"
    )
    assert "--port" in refuse("up", "--port", port)
    assert "--chat-port" in refuse("up", "--port", str(free_port()), "--chat-port", str(stack.chat_port))


def test_two_stacks_do_not_share_a_home(stack):
    ports = ["--port", str(free_port()), "--chat-port", str(free_port())]
    assert "another llmgw is running" in refuse("up", *ports, LLMGW_HOME=str(stack.folder / "home"))
