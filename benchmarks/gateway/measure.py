"""The measures under load, in rounds: each round takes every system in turn, so what disturbs one disturbs all."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.gateway import load
from benchmarks.gateway.check import Shape
from benchmarks.gateway.dialect import PACED, STREAM, WHOLE
from benchmarks.gateway.load import Load
from benchmarks.gateway.mock import EVENTS
from benchmarks.gateway.server import Server

# 8 connections that each pause 80 ms on average: some 100 requests a second, which every system can serve.
LIGHT_PAUSE_MS = (40, 120)


def loads(seconds: int) -> dict[str, Load]:
    return {
        "whole": Load(WHOLE, 32, seconds),
        "latency": Load(WHOLE, 8, seconds),
        "light": Load(WHOLE, 8, seconds, LIGHT_PAUSE_MS),
        "stream": Load(STREAM, 32, seconds),
        "paced": Load(PACED, 100, seconds),
    }


def rounds(
    servers: Sequence[Server], shapes: Mapping[str, Shape], count: int, seconds: int, skip: Sequence[str]
) -> list[dict[str, Any]]:
    """One sample per round, measure and system. Each round begins with another system."""
    samples = []
    for number in range(count):
        order = [*servers[number % len(servers) :], *servers[: number % len(servers)]]
        for measure, what in loads(seconds).items():
            if measure in skip:
                continue
            for server in order:
                sample = one(server, what, shapes[server.name])
                samples.append({"round": number, "measure": measure, "system": server.name} | sample)
                report(measure, server.name, sample)
    return samples


def one(server: Server, what: Load, shape: Shape) -> dict[str, Any]:
    """One sample, after a second to wake up."""
    with server.running():
        load.run(server, replace(what, seconds=1, delay_ms=(0, 0)))
        sample = load.run(server, what)
    if what.kind == WHOLE:
        units = sample["requests"]
    else:  # streams that were under way at the end count as far as they got
        units = sample["bytes"] / shape.wire_bytes
        sample["streams_per_second"] = units / sample["seconds"]
        units *= EVENTS if what.kind == PACED else 1
    sample["cpu_us"] = sample["cpu_s"] / units * 1e6 if units else None
    return sample


def report(measure: str, name: str, sample: Mapping[str, Any]) -> None:
    errors = f"  errors {sample['errors']}" if sample["errors"] else ""
    foreign = f"  others took {sample['foreign']:.0%} of the two cores" if sample["foreign"] > 0.05 else ""
    print(
        f"{measure:8} {name:14} {sample['per_second']:9.0f}/s  p50 {sample['p50_ms']:8.2f} ms"
        f"  p99 {sample['p99_ms']:8.2f} ms  CPU {sample['cpu_us'] or 0:7.0f} us{errors}{foreign}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
