"""The parts of `llmgw up` as running processes: started side by side, watched, and ended in order."""

import asyncio
import http.client
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from gateway import redis_address
from gateway.cli import embedded_redis, keys, ports
from gateway.cli.process import Process
from gateway.redis_channel import RedisUnavailable
from gateway.redis_link import RedisLink
from gateway.settings import Settings

# What a part may take to end by itself once it is told: Ray stops engines and a dozen processes.
GRACE_S = {"redis": 10.0, "backend": 60.0, "chat": 5.0}
READY_S = 30.0
# Which parts use which secret.
_SECRETS = {
    "LLMGW_REDIS_URL": ("backend", "gateway"),
    "LLMGW_ENGINE_KEY": ("backend", "gateway"),
    "LLMGW_KEY_SECRET": ("gateway",),
}
LONGEST_FOLDER = 64


class StartFailed(Exception):
    """A part did not start, or ended; the message is one line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, decided before anything is.

    Attributes:
        settings: the gateway's, from the command line, the environment and the cluster file.
        config: the cluster file.
        chat_port: None for no chat page.
    """

    settings: Settings
    config: Path
    chat_port: int | None


class Stack:
    """Redis, backend, gateway and chat page.

    Args:
        report: told what is ready, and how many seconds it took.
        notice: told what became of an edited cluster file.
    """

    def __init__(self, plan: Plan, report: Callable[[str, float], None], notice: Callable[[str], None]) -> None:
        self._plan = plan
        self._report = report
        self._notice = notice
        self._processes: dict[str, Process] = {}  # in the order of their start
        self._secrets: dict[str, str] = {}

    async def run(self, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        """Starts everything, calls `ready`, and returns after SIGINT, SIGTERM or SIGHUP and an orderly end.

        Raises:
            StartFailed: a part did not start, or ended by itself.
        """
        told = asyncio.create_task(_signal())
        with tempfile.TemporaryDirectory(prefix="llmgw-", dir=_short_folder()) as runtime, ExitStack() as announced:
            try:
                await _first(told, self._start(Path(runtime), announced))
                if not told.done():
                    ready()
                    await _first(told, *map(self._ended, self._processes.values()))
            finally:
                stopping()
                await self._stop()

    async def _start(self, runtime: Path, announced: ExitStack) -> None:
        settings, started = self._plan.settings, time.monotonic()
        url = settings.redis_url.get_secret_value() if settings.redis_url else await self._start_redis(runtime)
        await _try_redis(url)
        self._report("Redis", time.monotonic() - started)
        announced.enter_context(keys.announced(settings, url))
        key = settings.engine_key.get_secret_value() if settings.engine_key else secrets.token_urlsafe(32)
        self._secrets = {"LLMGW_REDIS_URL": url, "LLMGW_ENGINE_KEY": key, "LLMGW_KEY_SECRET": keys.secret(settings)}
        parts = [self._start_backend(), self._start_gateway()]
        if self._plan.chat_port is not None:
            parts.append(self._start_chat(self._plan.chat_port))
        try:
            async with asyncio.TaskGroup() as group:  # the first that fails stops the others from starting more
                for part in parts:
                    group.create_task(part)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        await self._poll_gateway("/health/ready")

    async def _start_redis(self, runtime: Path) -> str:
        path = runtime / "redis.sock"
        process = await self._spawn("redis", embedded_redis.command(path, self._plan.settings.home / "redis"))
        ended = asyncio.create_task(process.ended())
        while not path.exists():
            if ended.done():
                raise StartFailed(f"Redis did not start: {process.last_words()}")
            await asyncio.sleep(0.02)
        ended.cancel()
        return f"unix://{path}"

    async def _start_backend(self) -> None:
        process = await self._spawn(
            "backend", [sys.executable, "-m", "backend.cluster", "--config", str(self._plan.config)]
        )
        async for event in process.events():
            match event:
                case {"event": "step", "name": name, "seconds": seconds}:
                    self._report({"ray": "Ray", "serve": "Ray Serve"}[name], seconds)
                case {"event": "replica", "model": model, "seconds": seconds}:
                    self._report(model, seconds)
                case {"event": "failed", "message": message}:
                    raise StartFailed(message)
                case {"event": "ready"}:
                    return
        raise StartFailed(f"the backend ended: {process.last_words()} (see {process.log})")

    async def _start_gateway(self) -> None:
        settings, started = self._plan.settings, time.monotonic()
        argv = [sys.executable, "-m", "gateway.cli", "gateway", "--host", settings.host, "--port", str(settings.port)]
        process = await self._spawn("gateway", [*argv, *(["--insecure"] if settings.insecure else [])])
        answers, ended = asyncio.create_task(self._poll_gateway("/health/live")), asyncio.create_task(process.ended())
        await asyncio.wait([answers, ended], return_when=asyncio.FIRST_COMPLETED)
        answers.cancel()
        if ended.done():
            raise StartFailed(f"the gateway ended: {process.last_words()} (see {process.log})")
        ended.cancel()
        self._report("gateway", time.monotonic() - started)

    async def _start_chat(self, port: int) -> None:
        settings, started = self._plan.settings, time.monotonic()
        gateway = ports.url(ports.reachable(settings.host), settings.port)
        process = await self._spawn(
            "chat", [sys.executable, "-m", "chatbot", "--gateway", gateway, "--port", str(port)]
        )
        async for event in process.events():
            if event["event"] != "ready":
                raise StartFailed(event["message"])
            self._report("chat page", time.monotonic() - started)
            return
        raise StartFailed(f"the chat page ended: {process.last_words()} (see {process.log})")

    async def _poll_gateway(self, path: str) -> None:
        settings, deadline = self._plan.settings, time.monotonic() + READY_S
        while not await asyncio.to_thread(_answers, settings.host, settings.port, path):
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"the gateway does not get ready; see {self._plan.settings.home / 'logs' / 'gateway.log'}"
                )
            await asyncio.sleep(0.1)

    async def _spawn(self, name: str, argv: list[str]) -> Process:
        log = self._plan.settings.home / "logs" / f"{name}.log"
        settings = self._plan.settings
        grace_s = GRACE_S.get(name, settings.drain_notice_s + settings.drain_timeout_s + 5.0)
        process = self._processes[name] = await Process.start(name, argv, self._environment(name), log, grace_s)
        return process

    def _environment(self, name: str) -> dict[str, str]:
        """Secrets go to the parts that use them, and to no other."""
        environment = {variable: value for variable, value in os.environ.items() if variable not in _SECRETS}
        environment |= {"LLMGW_HOME": str(self._plan.settings.home), "LLMGW_CONFIG": str(self._plan.config)}
        return environment | {variable: text for variable, text in self._secrets.items() if name in _SECRETS[variable]}

    async def _ended(self, process: Process) -> None:
        async for event in process.events():
            match event:
                case {"event": "failed", "message": message}:
                    raise StartFailed(message)
                case {"event": "rejected", "message": message}:
                    self._notice(f"The edited cluster file cannot be used, everything stays as it was: {message}")
                case {"event": "updated"}:
                    self._notice("The edited cluster file is in use")
        status = await process.ended()
        raise StartFailed(f"{process.name} ended unexpectedly (status {status}); see {process.log}")

    async def _stop(self) -> None:
        """Who asks stops before who answers. A second signal leaves nobody waiting."""
        await _first(asyncio.create_task(_signal()), self._stop_in_order())
        for process in self._processes.values():
            process.kill()
        await asyncio.gather(*(process.ended() for process in self._processes.values()))

    async def _stop_in_order(self) -> None:
        for process in reversed(self._processes.values()):
            await process.stop()


def _short_folder() -> str:
    """Where a unix socket can be: its path has 107 bytes at most."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= LONGEST_FOLDER else "/tmp"  # noqa: S108 - a folder of our own is made in it


async def _first(told: "asyncio.Task[None]", *others: Awaitable[None]) -> None:
    """Waits until `told` is done or one of the others has ended or failed, and cancels the rest of those."""
    tasks = [asyncio.ensure_future(other) for other in others]
    done, _ = await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _signal() -> None:
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told.set)
    await told.wait()


async def _try_redis(url: str) -> None:
    """One that answers may still be none for the gateways."""
    try:
        async with redis_address.client(url, timeout_s=2.0) as redis:
            await redis.ping()
        await RedisLink(url).check()
    except (RedisError, OSError, RedisUnavailable) as error:
        raise StartFailed(f"Redis cannot be used: {redis_address.explain(url, error)}") from error


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(ports.reachable(host), port, timeout=2.0)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    return False
