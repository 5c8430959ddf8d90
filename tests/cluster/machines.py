"""The machines of docs/cluster.md, with its commands word for word."""

import json
import os
import re
import secrets
import socket
import sys
from collections import Counter
from collections.abc import Set
from pathlib import Path
from urllib.request import Request, urlopen

from redis import Redis

from backend.engines.base import sample
from gateway.cli.embedded_redis import server_path
from tests.cluster.lan import Lan, Machine
from tests.polling import eventually
from tests.sources import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text()
SHARED, REDIS, HEAD, INTEL, AMD, MODELS, DEPLOY, SECRET, KEY, GATEWAY = re.findall(
    r"^```(?:ini|sh|yaml)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
)
MODEL = "small"
# A machine that is busy with other things takes its time to start Ray.
START_S = 120


class Cluster:
    """Head, gateway and workers.

    Attributes:
        head: Ray's, and Redis.
        workers: by name.
        url: the gateway's.
        key: for the gateway.
    """

    def __init__(self, lan: Lan, folder: Path) -> None:
        self._lan = lan
        self._folder = folder
        words = ("secret-1", "secret-2", "secret-3", "secret-4")
        self._words = {word: secrets.token_hex(32) for word in words} | {"10.0.0.": lan.network}
        self.head = self._machine("head", 1)
        self._gateway = self._machine("gateway", 9, SHARED + SECRET)
        self.workers = {"intel": self._machine("intel", 2), "amd": self._machine("amd", 3)}
        self.url = f"http://{self._gateway.address}:8080"
        self.key = ""
        shared = self._environment(SHARED)
        self._engine_key = shared["LLMGW_ENGINE_KEY"]
        self._redis = Redis.from_url(shared["LLMGW_REDIS_URL"], socket_timeout=10, decode_responses=True)

    async def start(self) -> None:
        """Returns when every replica is ready and the gateway knows it."""
        self.head.service(self._here(REDIS))
        self.head.service(self._here(HEAD))
        await eventually(lambda: all(_listens(self.head, port) for port in (6379, 6380)), within=START_S)
        for worker, command in zip(self.workers.values(), (INTEL, AMD), strict=True):
            worker.service(self._here(command))
        self._gateway.service(self._here(GATEWAY))
        self.key = self._gateway.run(self._here(KEY)).split()[-1]
        (self.head.folder / "cluster.yaml").write_text(MODELS)
        self.head.run(self._here(DEPLOY))
        await eventually(lambda: _listens(self._gateway, 8080), within=START_S)
        await eventually(lambda: self.placed().total() == 3 == self.known(), within=START_S)

    def replicas(self) -> list[dict[str, str]]:
        """The directory's records of replicas that are ready."""
        ids = self._redis.smembers("{llmgw}:directory:replicas")
        texts = self._redis.mget([f"{{llmgw}}:directory:replica:{id_}" for id_ in ids]) if ids else []
        return [record for text in texts if text and (record := json.loads(text))["state"] == "ready"]

    def placed(self, besides: Set[str] = frozenset()) -> Counter[str]:
        """How many replicas are ready, by the name of their worker, but for these ids."""
        names = {f"//{worker.address}:": name for name, worker in self.workers.items()}
        urls = [record["url"] for record in self.replicas() if record["id"] not in besides]
        return Counter(name for url in urls for address, name in names.items() if address in url)

    def worker_of(self, replica: str) -> str:
        """The name of the worker that this ready replica runs on."""
        (url,) = [record["url"] for record in self.replicas() if record["id"] == replica]
        (name,) = [name for name, worker in self.workers.items() if f"//{worker.address}:" in url]
        return name

    def known(self) -> int:
        """How many replicas the gateway knows."""
        return sample(self._get(f"{self.url}/metrics", self.key), "llmgw_replicas")

    def answered(self) -> dict[str, int]:
        """Tokens that each engine has generated, by its record's id."""
        urls = {record["id"]: record["url"] for record in self.replicas()}
        return {
            id_: sample(self._get(f"{url}/metrics", self._engine_key), "llamacpp:tokens_predicted_total")
            for id_, url in urls.items()
        }

    def logs(self) -> str:
        logs = sorted(self._folder.glob("*/log"))
        return "\n".join(f"--- {log.parent.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def _machine(self, name: str, number: int, environment: str = SHARED) -> Machine:
        folder = self._folder / name
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(("LLMGW_", "RAY_"))}
        paths = [str(Path(sys.executable).parent), str(server_path().parent), inherited["PATH"]]
        own = {"PATH": ":".join(paths), "PYTHONPATH": str(ROOT)} | self._environment(environment)
        return self._lan.machine(name, number, folder, inherited | own | {"LLMGW_HOME": str(folder / "home")})

    def _environment(self, block: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._here(block).splitlines())

    def _here(self, text: str) -> str:
        for word, ours in self._words.items():
            text = text.replace(word, ours)
        return text

    @staticmethod
    def _get(url: str, key: str) -> str:
        with urlopen(Request(url, headers={"authorization": f"Bearer {key}"}), timeout=10) as answer:
            return str(answer.read().decode())


def _listens(machine: Machine, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((machine.address, port)) == 0
