"""The chains door, running, with a few chains of its own."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from langchain_core.runnables import Runnable, RunnableLambda
from langserve import RemoteRunnable
from langserve.lzstring import LZString

from tests.gateway.scripted_path import ScriptedPath
from tests.remote import remote_runnable

STREAMS = ("stream", "stream_log", "stream_events")
RUNS = ("invoke", "batch", *STREAMS)
TURN = {"input": "Hi"}


class Door:
    def __init__(self, url: str, path: ScriptedPath) -> None:
        self.url = url
        self.path = path
        self.http = httpx.AsyncClient(base_url=f"{url}/chains", timeout=20)

    def chain(self, name: str = "chat") -> RemoteRunnable[Any, Any]:
        return remote_runnable(f"{self.url}/chains/{name}")

    async def post(self, path: str, body: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(path, content=content, headers={"content-type": "application/json"})


def request(run: str, turn: Any = TURN, **fields: Any) -> dict[str, Any]:
    return {"inputs": [turn], **fields} if run == "batch" else {"input": turn, **fields}


def hashed(config: Any) -> str:
    text = config if isinstance(config, str) else json.dumps(config)
    return str(LZString.compressToEncodedURIComponent(text))


async def _numbers(text: str) -> AsyncIterator[dict[str, str]]:
    yield {"line": text}


async def _defect(text: str) -> AsyncIterator[str]:
    if text == "late":
        yield "first"
    raise RuntimeError("the password is hunter2")


EXTRA: dict[str, Runnable[Any, Any]] = {
    "echo": RunnableLambda(lambda value: value).with_types(input_type=dict[str, Any], output_type=dict[str, Any]),
    "lines": RunnableLambda(_numbers).with_types(input_type=str),  # type: ignore[arg-type]
    "defect": RunnableLambda(_defect).with_types(input_type=str),  # type: ignore[arg-type]
}
