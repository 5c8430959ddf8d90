"""plot_semantic.py RESULTS.json PLOT.svg: false hits over paraphrases served, by threshold. It wants matplotlib."""

import json
import sys

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "llmgw", "font.size": 9, "svg.fonttype": "none"})

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of its backend

_LINES = {"guard": "#0b6e99", "cosine": "#b5bcc4"}


def main() -> None:
    with open(sys.argv[1]) as file:
        rates = json.load(file)["rates"]
    figure, grid = plt.subplots(1, len(rates), figsize=(4 * len(rates), 4), sharey=True)
    for axes, (part, rows) in zip(grid, rates.items(), strict=True):
        for name, colour in _LINES.items():
            hits, false = ([100 * row[f"{name} {what}"] for row in rows] for what in ("hits", "false"))
            axes.plot(hits, false, "o-", color=colour, label="with the guard" if name == "guard" else "cosine alone")
            for row, x, y in zip(rows, hits, false, strict=True):
                axes.annotate(f"{row['threshold']:g}", (x, y), (3, 3), textcoords="offset points", fontsize=7)
        axes.axhline(0.5, color="#c0392b", linewidth=0.8)
        axes.axvline(60, color="#c0392b", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, 100)
        axes.set_title(part.replace("_", " "), loc="left")
        axes.set_xlabel("paraphrases served, %")
        axes.grid(color="#eceff1")
    grid[0].set_ylabel("false hits, %")
    grid[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None})


main()
