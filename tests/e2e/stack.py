"""`llmgw up`, started for real, as a test sees it."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
from redis import Redis

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"
MARK = "LLMGW_TEST_STACK"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stack:
    """One `llmgw up` and what it started.

    Attributes:
        folder: home and temporary files of this stack, and of no other.
        output: what it has printed.
        ends_with: the exit status that is right.
    """

    folder: Path
    arguments: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    chat_port: int = field(default_factory=free_port)
    output: list[str] = field(default_factory=list)
    ends_with: int = 0
    engine_key: str = field(default_factory=lambda: secrets.token_hex(16))
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def chat_url(self) -> str:
        return f"http://127.0.0.1:{self.chat_port}"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "LLMGW_HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder),
            "LLMGW_ENGINE_KEY": self.engine_key,
            MARK: self.mark,
        }

    def start(self) -> None:
        ports = ["--port", str(self.port), "--chat-port", str(self.chat_port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "up", *ports, *self.arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._said = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_for(self, words: str, seconds: float = 120) -> None:
        """Returns once it has printed `words`."""
        with self._said:
            self._said.wait_for(lambda: words in self.printed or self.process.poll() is not None, seconds)
        assert words in self.printed, f"{self.printed}\n{self.logs()}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As kill -9 does."""
        self.ends_with = -signal.SIGKILL
        self.process.kill()

    def end(self, seconds: float = 60) -> int:
        """Waits for its end; returns the exit status."""
        return self.process.wait(seconds)

    def processes(self) -> list[psutil.Process]:
        """Everything of this stack that still runs."""
        alive = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive

    @property
    def printed(self) -> str:
        return "".join(self.output)

    def logs(self) -> str:
        files = sorted((self.folder / "home" / "logs").glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-4000:]}" for file in files)

    def log(self, name: str) -> str:
        return (self.folder / "home" / "logs" / f"{name}.log").read_text(errors="replace")

    @property
    def redis_url(self) -> str:
        (path,) = self.folder.glob("llmgw-*/redis.sock")
        return f"unix://{path}"

    def replicas(self, model: str) -> list[dict]:
        with Redis.from_url(self.redis_url) as redis:
            ids = redis.smembers("{llmgw}:directory:replicas")
            records = [redis.get(b"{llmgw}:directory:replica:" + id_) for id_ in ids]
        found = map(json.loads, filter(None, records))
        return [record for record in found if (record["model"], record["state"]) == (model, "ready")]

    def engine_metrics(self, model: str = CHAT_MODEL) -> dict[str, float]:
        """The engine's own counters, from the engine."""
        (replica,) = self.replicas(model)
        request = Request(f"{replica['url']}/metrics", headers={"authorization": f"Bearer {self.engine_key}"})
        with urlopen(request, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if line and line[0] != "#")}

    def busy(self, model: str = CHAT_MODEL) -> int:
        """Generations that run or wait in an engine of llama.cpp's."""
        metrics = self.engine_metrics(model)
        waiting = metrics["llamacpp:requests_waiting"] + metrics["llamacpp:requests_deferred"]
        return int(metrics["llamacpp:requests_processing"] + waiting)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.output.append(line)
                self._said.notify_all()
        with self._said:
            self._said.notify_all()
