"""How soon an engine is free after its client has left: measured on the embedded chat model, through the gateway.

    LLMGW_ENGINE_KEY=bench llmgw up --no-chat &
    python benchmarks/abort/measure.py --engine-key bench --redis unix:///tmp/llmgw-.../redis.sock

Seconds from the close of the client's connection until the engine's own metrics show no running and no waiting request.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version

import httpx
from redis.asyncio import Redis

MODEL = "smollm2-135m-instruct"
ANSWER = {"messages": [{"role": "user", "content": "Tell a very long story."}], "max_tokens": 3000, "ignore_eos": True}
PROMPT = {"messages": [{"role": "user", "content": "alpha beta gamma delta " * 700}], "cache_prompt": False}
MODES = {
    "stream, generating": (ANSWER | {"stream": True}, 1),
    "whole, generating": (ANSWER, 1),
    "stream, in prefill": (PROMPT | {"stream": True}, 1),
    "whole, in prefill": (PROMPT, 1),
    "stream, 4 running and 6 waiting": (ANSWER | {"stream": True}, 10),
    "whole, 4 running and 6 waiting": (ANSWER, 10),
}


class Engine:
    """The chat engine's load, from the engine itself."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"})

    async def busy(self) -> float:
        lines = (await self._client.get("/metrics")).text.splitlines()
        names = ("requests_processing", "requests_waiting", "requests_deferred")
        return sum(float(line.split()[1]) for line in lines if line.startswith(tuple(f"llamacpp:{n} " for n in names)))


async def find_engine(redis_url: str, key: str) -> Engine:
    async with Redis.from_url(redis_url) as redis:
        for id_ in await redis.smembers("{llmgw}:directory:replicas"):
            record = json.loads(await redis.get(b"{llmgw}:directory:replica:" + id_) or "{}")
            if record.get("model") == MODEL:
                return Engine(record["url"], key)
    raise SystemExit(f"no replica of {MODEL} in the directory at {redis_url}")


async def trial(gateway: str, engine: Engine, body: dict[str, object], clients: int) -> float:
    async with httpx.AsyncClient(base_url=gateway, timeout=120) as client:
        calls = [
            asyncio.create_task(client.post("/v1/chat/completions", json=body | {"model": MODEL}))
            for _ in range(clients)
        ]
        while await engine.busy() < clients:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)
        for call in calls:
            call.cancel()
        started = time.perf_counter()
        await asyncio.gather(*calls, return_exceptions=True)
        while await engine.busy():
            await asyncio.sleep(0.005)
        return time.perf_counter() - started


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--redis", required=True)
    parser.add_argument("--engine-key", required=True)
    parser.add_argument("--trials", type=int, default=10)
    arguments = parser.parse_args()
    engine = await find_engine(arguments.redis, arguments.engine_key)
    results = {}
    for name, (body, clients) in MODES.items():
        seconds = [await trial(arguments.gateway, engine, body, clients) for _ in range(arguments.trials)]
        results[name] = {"median": statistics.median(seconds), "max": max(seconds), "all": seconds}
    versions = {name: version(name) for name in ("llm-access-gateway", "xllamacpp", "ray", "uvicorn")}
    json.dump(
        {"command": sys.argv, "python": platform.python_version(), "versions": versions, "seconds": results},
        sys.stdout,
        indent=2,
    )


if __name__ == "__main__":
    asyncio.run(main())
