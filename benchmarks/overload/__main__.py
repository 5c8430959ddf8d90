"""`python -m benchmarks.overload`: what is left of an engine when more is asked than it can do?

A scripted engine (`engine.py`), `llmgw gateway` with two workers, and clients that come at random times, each for one
answer: as many as the engine can serve, twice and five times as many. With admission, and without. Goodput is what was
answered within PATIENCE_S, over what the engine can do; clients that were not leave then.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.overload.engine import Engine
from gateway.settings import Settings

HERE = Path(__file__).parent
CAPACITY, SERVICE_S = 16, 0.4
SECONDS, PATIENCE_S = 15.0, 5.0
LOADS = (1, 2, 5)
ADMISSION = {"upstream": {"max_concurrency": CAPACITY}, "gateway": {"queue_max_requests": CAPACITY}}
NONE: dict[str, Any] = {"upstream": {}, "gateway": {}}
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def ask(session: aiohttp.ClientSession, url: str) -> tuple[int, float]:
    """Status (0 for one that was given up) and seconds."""
    began, timeout = time.monotonic(), aiohttp.ClientTimeout(PATIENCE_S)
    try:
        async with session.post(f"{url}/v1/chat/completions", json=BODY, timeout=timeout) as answer:
            await answer.read()
            return answer.status, time.monotonic() - began
    except TimeoutError:
        return 0, time.monotonic() - began


async def load(url: str, times: int) -> dict[str, Any]:
    """Open loop: clients come whether the others have been answered or not."""
    per_second = times * CAPACITY / SERVICE_S
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        asked, comes, end = [], time.monotonic(), time.monotonic() + SECONDS
        while (comes := comes + random.expovariate(per_second)) < end:
            await asyncio.sleep(comes - time.monotonic())
            asked.append(asyncio.create_task(ask(session, url)))
        in_time = sum([task.done() and task.result()[0] == 200 for task in asked])
        results = await asyncio.gather(*asked)
    served = sorted(seconds for status, seconds in results if status == 200)
    return {
        "load": times,
        "asked": len(results),
        "served": len(served),
        "refused": sum(status == 503 for status, _ in results),
        "given_up": sum(status == 0 for status, _ in results),
        "goodput": in_time / (SECONDS * CAPACITY / SERVICE_S),
        "p50_s": served[len(served) // 2] if served else None,
        "p99_s": served[int(len(served) * 0.99)] if served else None,
    }


async def ready(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/health/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


async def measure(name: str, settings: dict[str, Any], port: int) -> list[dict[str, Any]]:
    rows, url = [], f"http://127.0.0.1:{port}"
    async with Engine(CAPACITY, SERVICE_S).running() as engine:
        section = {"upstreams": [{"model": "m", "url": engine, **settings["upstream"]}], "access_log": False}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
            yaml.safe_dump({"gateway": section | settings["gateway"]}, config)
            config.flush()
            argv = [sys.executable, "-m", "gateway.cli", "gateway", "--config", config.name, "--port", str(port)]
            environment = {**os.environ, "LLMGW_DRAIN_NOTICE_S": "0"}
            gateway = await asyncio.create_subprocess_exec(*argv, env=environment)
            try:
                await asyncio.wait_for(ready(url), 60)
                for times in LOADS:
                    rows.append({"case": name, **await load(url, times)})
                    print(rows[-1], flush=True)
                    await asyncio.sleep(PATIENCE_S)  # what is left over goes
            finally:
                gateway.terminate()
                await gateway.wait()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| load | | goodput | p50 / p99 of the served, s | refused | given up |", "|--:|---|--:|--:|--:|--:|"]
    for row in sorted(rows, key=lambda row: row["load"]):
        waits = f"{row['p50_s']:.2f} / {row['p99_s']:.2f}" if row["served"] else "none"
        left = f"{row['refused'] / row['asked']:.0%} | {row['given_up'] / row['asked']:.0%}"
        lines.append(f"| {row['load']}x | {row['case']} | {row['goodput']:.2f} | {waits} | {left} |")
    return "\n".join(lines)


async def main() -> None:
    port = Settings.load().port + 11
    rows = await measure("admission", ADMISSION, port) + await measure("none", NONE, port)
    results = {"capacity": CAPACITY, "service_s": SERVICE_S, "patience_s": PATIENCE_S, "seconds": SECONDS, "rows": rows}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    asyncio.run(main())
