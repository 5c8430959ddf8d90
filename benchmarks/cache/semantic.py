"""`python -m benchmarks.cache.semantic`: how many paraphrases does the semantic cache serve, and what else?

The cluster's embeddings model, as its engine server computes them, on labelled pairs of questions out of questions/:
each line has three ways to ask the same, and other questions that look like them, with what was changed. The guard was
tuned on all parts but fresh.jsonl (benchmarks/README.md says what was seen of each).
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from backend.engines import engines
from backend.engines.base import KEY_VARIABLE, Place
from backend.ports import LOOPBACK, free_port
from backend.server import EngineServer
from backend.spec import ClusterSpec, ModelSpec
from benchmarks.gateway import machine
from gateway.cache.guard import nearness

HERE = Path(__file__).parent
PARTS = ("development", "held_out", "everyday", "fresh")
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
SAME = "paraphrase"


@dataclass
class Pair:
    """Two questions; `kind` is `paraphrase`, or how the second was changed."""

    part: str
    kind: str
    asked: str
    stored: str
    similarity: float = 0.0

    def served(self, threshold: float, *, guarded: bool) -> bool:
        needed = nearness(self.asked, self.stored, threshold) if guarded else threshold
        return needed is not None and self.similarity >= needed


def pairs(part: str) -> Iterator[Pair]:
    lines = [json.loads(line) for line in (HERE / "questions" / f"{part}.jsonl").read_text().splitlines()]
    for line, following in zip(lines, [*lines[1:], lines[0]], strict=True):
        for one, other in combinations(line["asks"], 2):
            yield Pair(part, SAME, one, other)
        for kind, other in line["others"]:
            yield from (Pair(part, kind, one, other) for one in line["asks"])
        yield from (Pair(part, "unrelated", *both) for both in zip(line["asks"], following["asks"], strict=True))


async def embeddings(texts: Sequence[str]) -> dict[str, Any]:
    """The embedding of each text, of length 1."""
    spec = next(spec for spec in ClusterSpec.load().models if spec.task.value == "embeddings")
    with machine.run_folder() as home:
        os.environ |= {"LLMGW_HOME": str(home), KEY_VARIABLE: "benchmark"}
        server = await EngineServer.start(spec, engines()[spec.engine], Place(LOOPBACK, free_port(), threads=1))
        try:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                return {text: await _embedding(client, spec, text) for text in texts}
        finally:
            await server.stop()


async def _embedding(client: httpx.AsyncClient, spec: ModelSpec, text: str) -> Any:
    body = {"model": spec.name, "input": text}
    answer = await client.post("/v1/embeddings", json=body, headers={"authorization": "Bearer benchmark"})
    vector = np.array(answer.raise_for_status().json()["data"][0]["embedding"])
    return vector / np.linalg.norm(vector)


def rates(some: Sequence[Pair]) -> list[dict[str, float]]:
    """By threshold: which shares of the paraphrases and of the others are served, with and without the guard."""
    of = {"hits": [pair for pair in some if pair.kind == SAME], "false": [pair for pair in some if pair.kind != SAME]}
    rows = []
    for threshold in THRESHOLDS:
        row = {"threshold": threshold}
        for name, guarded in (("guard", True), ("cosine", False)):
            for what, those in of.items():
                row[f"{name} {what}"] = sum(pair.served(threshold, guarded=guarded) for pair in those) / len(those)
        rows.append(row)
    return rows


def table(all_pairs: Sequence[Pair], results: dict[str, list[dict[str, float]]]) -> str:
    lines = []
    for part, rows in results.items():
        some = [pair for pair in all_pairs if part in ("all", pair.part)]
        same = sum(pair.kind == SAME for pair in some)
        lines += [
            f"**{part}**: {same} paraphrases, {len(some) - same} other questions",
            "",
            "| threshold | guard: paraphrases served | false hits | cosine alone: paraphrases served | false hits |",
            "|--:|--:|--:|--:|--:|",
        ]
        for row in rows:
            shares = (f"{100 * row[name]:.1f}%" for name in ("guard hits", "guard false", "cosine hits"))
            lines.append(f"| {row['threshold']:.2f} | {' | '.join(shares)} | {100 * row['cosine false']:.1f}% |")
        lines.append("")
    lines += [
        "False hits at 0.75 by what was changed:",
        "",
        "| changed | pairs | guard | cosine alone |",
        "|---|--:|--:|--:|",
    ]
    for kind in sorted({pair.kind for pair in all_pairs} - {SAME}):
        of = [pair for pair in all_pairs if pair.kind == kind]
        counts = (sum(pair.served(0.75, guarded=guarded) for pair in of) for guarded in (True, False))
        lines.append(f"| {kind} | {len(of)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    all_pairs = [pair for part in PARTS for pair in pairs(part)]
    vectors = asyncio.run(embeddings(sorted({text for pair in all_pairs for text in (pair.asked, pair.stored)})))
    for pair in all_pairs:
        pair.similarity = float(vectors[pair.asked] @ vectors[pair.stored])
    results = {part: rates([pair for pair in all_pairs if part in ("all", pair.part)]) for part in (*PARTS, "all")}
    folder = HERE / "results"
    path = folder / "semantic.json"
    path.write_text(json.dumps({"machine": machine.describe(), "rates": results}, indent=1) + "\n")
    text = table(all_pairs, results)
    (folder / "semantic.md").write_text(text)
    print(text)
    python = machine.PEERS / "tools" / "bin" / "python"
    if not python.exists():
        raise SystemExit("not drawn: benchmarks/gateway/install.sh installs what draws")
    subprocess.run([str(python), str(HERE / "plot_semantic.py"), str(path), str(folder / "semantic.svg")], check=True)


if __name__ == "__main__":
    main()
