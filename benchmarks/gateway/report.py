"""From samples to results.json, table.md and plot.svg."""

import json
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gateway.machine import HERE, PEERS
from benchmarks.gateway.systems import OURS

_DIRECT = "direct"
# name: (measure, field); what is said of each system.
FIGURES = {
    "whole_per_second": ("whole", "per_second"),
    "whole_cpu_us": ("whole", "cpu_us"),
    "p50_ms": ("latency", "p50_ms"),
    "p99_ms": ("latency", "p99_ms"),
    "light_p50_ms": ("light", "p50_ms"),
    "light_p99_ms": ("light", "p99_ms"),
    "streams_per_second": ("stream", "streams_per_second"),
    "stream_cpu_us": ("stream", "cpu_us"),
    "event_cpu_us": ("paced", "cpu_us"),
}
_LATENCIES = ("p50_ms", "p99_ms", "light_p50_ms", "light_p99_ms")
_LOAD_BOUND = 0.97


def summarise(samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per system: medians over rounds, medians of the per-round ratios to ours, latency on top of the direct one."""
    per_round = {(s["system"], s["measure"], s["round"]): s for s in samples}
    numbers = sorted({s["round"] for s in samples})
    summary: dict[str, dict[str, Any]] = {}
    for system in dict.fromkeys(s["system"] for s in samples):
        figures: dict[str, Any] = {}
        for name, (measure, field) in FIGURES.items():
            values = [_value(per_round, system, measure, n, field) for n in numbers]
            ours = [_value(per_round, OURS, measure, n, field) for n in numbers]
            figures[name] = _median(values)
            figures[f"{name}_ratio"] = _median(a / b if a and b else None for a, b in zip(values, ours, strict=True))
            if name in _LATENCIES:
                base = [_value(per_round, _DIRECT, measure, n, field) for n in numbers]
                added = (a - b if a and b else None for a, b in zip(values, base, strict=True))
                figures[f"added_{name}"] = _median(added)
        own = [s for s in samples if s["system"] == system]
        figures["errors"] = _errors(own)
        figures["load_bound"] = [m for m in ("whole", "stream") if _bound(own, m)]
        summary[system] = figures
    return summary


def _value(per_round: Mapping[Any, Any], system: str, measure: str, number: int, field: str) -> float | None:
    return per_round.get((system, measure, number), {}).get(field)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _errors(samples: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    errors: dict[str, dict[str, int]] = {}
    for sample in samples:
        for name, count in sample["errors"].items():
            of_measure = errors.setdefault(sample["measure"], {})
            of_measure[name] = of_measure.get(name, 0) + count
    return errors


def foreign(samples: list[dict[str, Any]]) -> float:
    """The share of both cores that processes outside the benchmark took, on average."""
    return statistics.fmean(sample["foreign"] for sample in samples) if samples else 0.0


def _bound(samples: list[dict[str, Any]], measure: str) -> bool:
    """The load's core was full and the gateway's was not: the figure is a lower bound."""
    shares = [(s["load_core"], s["cpu_s"] / s["seconds"]) for s in samples if s["measure"] == measure]
    return bool(shares) and statistics.median(a for a, _ in shares) > _LOAD_BOUND > statistics.median(
        b for _, b in shares
    )


def table(results: Mapping[str, Any]) -> str:
    summary, memory, versions = results["summary"], results["memory"], results["versions"]
    rows = [
        ("system", "version", "whole answers/s", f"× {OURS}", "CPU per answer, µs", "added p50 / p99, ms",
         "added p50 / p99 at 100/s, ms", "64-event streams/s", f"× {OURS}", "CPU per stream, µs",
         "CPU per paced event, µs", "idle PSS (RSS), MB", "kB per open stream"),
        ("---",) * 2 + ("--:",) * 11,
    ]  # fmt: skip
    for system in sorted(summary, key=lambda name: -(summary[name]["whole_per_second"] or 0)):
        rows.append(_row(system, versions.get(system, ""), summary[system], memory.get(system, {})))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", "≥: the load's core was full before the gateway's; compare the CPU times."]
    lines += [f"- **{name}** failed: {error}" for name, error in results["failed"].items()]
    lines += [f"- {name}: errors under load: {s['errors']}" for name, s in summary.items() if s["errors"]]
    if scaling := results.get("scaling"):
        lines += [
            "",
            f"Two workers on two cores, efficiency: {statistics.median(scaling['efficiency']):.2f} (scaling.py).",
        ]
    machine = results["machine"]
    lines += ["", f"{machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}. `{results['command']}`: "
              f"{results['rounds']} rounds of {results['seconds']} s; "
              f"others took {results['foreign']:.0%} of the two cores meanwhile."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(system: str, version: str, figures: Mapping[str, Any], memory: Mapping[str, Any]) -> tuple[str, ...]:
    def number(name: str) -> str:
        return _format(figures[name])

    def bound(measure: str) -> str:
        return "≥ " if measure in figures["load_bound"] else ""

    gateway = system != _DIRECT
    idle, per_stream = memory.get("idle"), memory.get("kb_per_stream")
    short = f" (only {memory['opened']} opened)" if memory and memory["opened"] < memory["asked"] else ""
    return (
        system,
        version,
        bound("whole") + number("whole_per_second"),
        number("whole_per_second_ratio"),
        number("whole_cpu_us") if gateway else "",
        f"{number('added_p50_ms')} / {number('added_p99_ms')}" if gateway else "",
        f"{number('added_light_p50_ms')} / {number('added_light_p99_ms')}" if gateway else "",
        bound("stream") + number("streams_per_second"),
        number("streams_per_second_ratio"),
        number("stream_cpu_us") if gateway else "",
        number("event_cpu_us") if gateway else "",
        f"{idle['pss']:.0f} ({idle['rss']:.0f})" if idle else "",
        _format(per_stream) + short if memory else "",
    )


def _format(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write(results: dict[str, Any], folder: Path) -> str:
    """Writes all of it, and returns the table."""
    folder.mkdir(exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    (folder / "table.md").write_text(text)
    draw = [str(PEERS / "tools" / "bin" / "python"), str(HERE / "plot.py"), str(path), str(folder / "plot.svg")]
    subprocess.run(draw, check=False)
    return text
