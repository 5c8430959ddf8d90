"""`python -m benchmarks.cache.identical`: what do a hundred clients cost who ask for the same stream at once?

Two workers of one gateway share a Redis. In each round one client asks alone, then a hundred ask at once for a stream
that nobody has asked for before. The mock engine says how many requests have reached it; the paced stream takes it some
0.3 s, so all of the hundred come while it is made.
"""

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.gateway import machine, mock, redis
from benchmarks.gateway.dialect import PACED, OpenAI
from benchmarks.gateway.mock import TOKENS, Mock
from benchmarks.gateway.server import Server, started
from benchmarks.gateway.systems import ALL, OURS

HERE = Path(__file__).parent
CLIENTS, ROUNDS = 100, 10
CORES = (machine.GATEWAY_CORE, machine.LOAD_CORE)


def request(server: Server, seed: int) -> bytes:
    """As it goes over the wire; the seed makes it one that may be shared."""
    body = json.dumps(json.loads(OpenAI().body(PACED)) | {"seed": seed}).encode()
    fields = {**server.headers, "host": "gateway", "content-length": str(len(body)), "connection": "close"}
    lines = [f"POST {OpenAI.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def ask(server: Server, data: bytes) -> dict[str, Any]:
    """One client; `complete` is whether every token of the engine came, in a stream that ended as it should."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    events = [line async for line in reader if line.startswith(b"data:")]
    writer.close()
    complete = events[-1:] == [b"data: [DONE]\n"] and sum(b'"content":" tok"' in event for event in events) == TOKENS
    return {"complete": complete, "shared": b"x-llmgw-cache: shared" in head, "seconds": time.monotonic() - began}


async def measure(server: Server, engine: Mock, clients: int, seed: int) -> dict[str, Any]:
    before = engine.status()["requests"]
    answers = await asyncio.gather(*(ask(server, request(server, seed)) for _ in range(clients)))
    seconds = [answer["seconds"] for answer in answers]
    return {
        "clients": clients,
        "generations": engine.status()["requests"] - before - 1,  # to ask for its status is a request too
        "complete": sum(answer["complete"] for answer in answers),
        "shared": sum(answer["shared"] for answer in answers),
        "median_s": round(statistics.median(seconds), 4),
        "max_s": round(max(seconds), 4),
    }


async def rounds(server: Server, engine: Mock) -> list[dict[str, Any]]:
    first = int(time.time()) * 1000
    rows = []
    for number in range(ROUNDS):
        for clients in (1, CLIENTS):
            rows.append(await measure(server, engine, clients, first + 2 * number + (clients > 1)))
            print(rows[-1], flush=True)
            await asyncio.sleep(0.2)
    return rows


def main() -> None:
    machine.prepare()
    system = next(system for system in ALL if system.name == f"{OURS}+redis")
    with (
        machine.run_folder() as folder,
        mock.running(folder, CORES) as engine,
        redis.running(folder) as redis_url,
        started(system, engine, folder, redis_url, CORES, workers=2) as server,
    ):
        rows = asyncio.run(rounds(server, engine))
    report = {"machine": machine.describe(), "rows": rows}
    (HERE / "results" / "identical.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
