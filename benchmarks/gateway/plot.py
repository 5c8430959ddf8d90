"""plot.py RESULTS.json PLOT.svg: four bar charts. It runs in the tools' environment, which has matplotlib."""

import json
import sys

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "llmgw", "font.size": 9, "svg.fonttype": "none"})

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of its backend

_CHARTS = (
    ("whole_per_second", "whole answers per second, 32 connections", "more is better"),
    ("added_light_p50_ms", "latency added at 100 requests/s, median, ms", "less is better"),
    ("stream_cpu_us", "CPU per 64-event stream, µs", "less is better"),
    ("event_cpu_us", "CPU per event at 5 ms between events, µs", "less is better"),
)
_OURS, _OTHERS, _LIMIT = "#0b6e99", "#b5bcc4", "#dfe3e7"


def _colour(name: str) -> str:
    if name.startswith("llmgw"):
        return _OURS
    return _LIMIT if name in ("direct", "nginx") else _OTHERS


def _chart(axes, summary: dict, figure: str, title: str, hint: str) -> None:
    values = {name: figures[figure] for name, figures in summary.items() if (figures.get(figure) or 0) > 0}
    names = sorted(values, key=values.get, reverse=hint.startswith("less"))
    if not names:  # not measured
        axes.set_axis_off()
        return
    bars = axes.barh(names, [values[name] for name in names], color=[_colour(name) for name in names], height=0.7)
    axes.bar_label(bars, [f"{values[n]:,.0f}" if values[n] >= 100 else f"{values[n]:.3g}" for n in names], padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.16)
    axes.set_title(f"{title} (log, {hint})", loc="left", fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#eceff1")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def main() -> None:
    with open(sys.argv[1]) as file:
        results = json.load(file)
    figure, grid = plt.subplots(2, 2, figsize=(12, 7))
    for axes, chart in zip(grid.flat, _CHARTS, strict=True):
        _chart(axes, results["summary"], *chart)
    machine = results["machine"]
    figure.suptitle(
        f"One worker on one core of {machine['cpu']}; medians of {results['rounds']} rounds", x=0.01, ha="left"
    )
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None})


main()
