"""Gateways that are processes of their own, with one worker each."""

import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from tests.e2e.stack import free_port
from tests.gateway.flight.conftest import Asker

# As in the other tests here, Redis may be slow: the machine may be busy.
_PATIENT = """\
import gateway.completion.remote_flight as remote_flight
import gateway.redis_channel as channel
channel.TIMEOUT_S, remote_flight.FIRST_WORD_S = 1.0, 5.0
from gateway.cli.main import app
app()
"""


class Process:
    def __init__(self, config: Path) -> None:
        port = free_port()
        argv = [sys.executable, "-c", _PATIENT, "gateway", "--config", str(config), "--port", str(port)]
        self._process = subprocess.Popen([*argv, "--workers", "1"], stderr=subprocess.DEVNULL)
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def ask(self, **fields) -> Asker:
        return Asker(self._client, fields, None)

    async def ready(self) -> bool:
        try:
            return (await self._client.get("/health/ready")).json()["redis"] == "up"
        except httpx.TransportError:
            return False

    def kill_worker(self) -> None:
        """With SIGKILL; it is not replaced."""
        workers = psutil.Process(self._process.pid).children()
        self._process.kill()
        for worker in workers:
            worker.kill()

    async def stop(self) -> None:
        await self._client.aclose()
        self._process.terminate()
        self._process.wait(30)
