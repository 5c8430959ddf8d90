"""One engine process, supervised: started under the guard, watched, stopped with its whole process group."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self, cast

import aiohttp

from backend import guard
from backend.engines.base import KEY_VARIABLE, Engine, Launch, Load, Place
from backend.home import home
from backend.spec import ModelSpec

TAIL_LINES = 20
NOT_FOR_ENGINES = {"RAY_AUTH_TOKEN", "LLMGW_REDIS_URL"}
# From SIGTERM to SIGKILL.
GRACE_S = 5
POLL_S = 0.05
PROBE_TIMEOUT = aiohttp.ClientTimeout(total=10)
# Short, for the heartbeat waits for it: a record must not expire because its engine is slow to count.
LOAD_TIMEOUT = aiohttp.ClientTimeout(total=2)

log = logging.getLogger(__name__)


class EngineFailed(RuntimeError):
    """The engine did not start, or is gone; below the message's first line are the last lines the engine wrote."""


class EngineProcess:
    """The process, and the last lines it wrote."""

    def __init__(self, model: str, process: asyncio.subprocess.Process, log_name: str) -> None:
        self._model = model
        self._process = process
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log = asyncio.create_task(self._keep_output(f"{model}-{log_name}.log"))
        self._stopping = False

    @classmethod
    async def spawn(cls, spec: ModelSpec, launch: Launch, log_name: str) -> Self:
        process = await asyncio.create_subprocess_exec(
            *guard.command(list(launch.argv), grace_s=GRACE_S),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name not in NOT_FOR_ENGINES} | dict(launch.env),
            start_new_session=True,
        )
        return cls(spec.name, process, log_name)

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def watch(self) -> None:
        """Returns when the process was stopped; raises EngineFailed when it has ended before."""
        await self._process.wait()
        await self._log
        if not self._stopping:
            raise self.failure(f"exited with status {self._process.returncode}")

    async def stop(self) -> None:
        """Ends the engine: TERM, a bounded wait, KILL, for its whole process group. Idempotent."""
        self._stopping = True
        if self.running:
            with suppress(ProcessLookupError):
                self._process.terminate()
        await self._process.wait()
        await self._log

    def failure(self, what: str) -> EngineFailed:
        last = self._tail[-1] if self._tail else "it wrote nothing"
        return EngineFailed("\n  ".join([f"the engine of {self._model} {what}: {last}", *self._tail]))

    async def _keep_output(self, name: str) -> None:
        """Copies the engine's output to its log and keeps the last lines for the error that shows them.

        An engine whose output nobody reads stands still: without a log that can be written, it is read on.
        """
        path = home() / "logs" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb", buffering=0) as file:
                await self._read_output(file.write)
        except OSError as error:
            log.warning("%s: the engine's log ends here: %s", path, error)
            await self._read_output(lambda _: None)

    async def _read_output(self, copy: Callable[[bytes], object]) -> None:
        output = cast(asyncio.StreamReader, self._process.stdout)
        while chunk := await output.read(65536):
            self._tail.extend(chunk.decode(errors="replace").splitlines())
            copy(chunk)


class EngineServer:
    """The process that answers on HTTP.

    Attributes:
        url: its address, without a trailing slash.
        http: a session for this engine; it carries no key of its own.
    """

    def __init__(self, engine: Engine, process: EngineProcess, url: str) -> None:
        self.url = url
        # No limit of connections: the engine queues, and a health check must not wait behind its clients.
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(sock_connect=10),
            auto_decompress=False,
        )
        self._engine = engine
        self._process = process
        self._key = {"Authorization": f"Bearer {os.environ[KEY_VARIABLE]}"}

    @classmethod
    async def start(cls, spec: ModelSpec, engine: Engine, place: Place) -> Self:
        """Starts the server at `place` and waits until it is healthy.

        Raises:
            EngineFailed: it exited, or was not healthy within `spec.start_timeout_s`.
            MissingModel: the model's files are not there.
        """
        process = await EngineProcess.spawn(spec, engine.launch(spec, place), str(place.port))
        server = cls(engine, process, place.url)
        try:
            async with asyncio.timeout(spec.start_timeout_s):
                while not await server._probe():  # noqa: ASYNC110 - another process, there is no event to wait for
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            await server.stop()
            raise process.failure(f"not healthy within {spec.start_timeout_s:g} s") from None
        except BaseException:
            await server.stop()
            raise
        return server

    async def watch(self) -> None:
        """Returns when the engine was stopped; raises EngineFailed when it has ended before."""
        await self._process.watch()

    async def check(self) -> None:
        """Raises EngineFailed when the engine has exited or does not answer its health route."""
        if not await self._probe():
            raise self._process.failure("does not answer its health route")

    async def load(self) -> Load:
        """Reads the engine's load; raises aiohttp.ClientError or TimeoutError when it does not answer."""
        url = f"{self.url}/metrics"
        async with self.http.get(url, headers=self._key, timeout=LOAD_TIMEOUT, raise_for_status=True) as response:
            return self._engine.load(await response.text())

    async def busy(self) -> bool:
        """Whether it has something to do, and will end it: one that is gone or stands still does not."""
        try:
            load = await self.load()
        except TimeoutError:
            return self._process.running and await self._probe()
        except aiohttp.ClientError:
            return False
        return load.running + load.waiting > 0

    async def stop(self) -> None:
        """Ends the engine. Idempotent."""
        await self.http.close()
        await self._process.stop()

    async def _probe(self) -> bool:
        if not self._process.running:
            await self._process.watch()
            return False
        try:
            async with self.http.get(self.url + self._engine.health_path, timeout=PROBE_TIMEOUT) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
