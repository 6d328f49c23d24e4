"""The plot: ratios by cell, and each library's time over the least possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.peers.libraries import NAMES, OURS

COLOURS = dict(zip(NAMES, ["black", *colormaps["tab10"].colors], strict=False))
HEIGHT_OF_ROW = 0.2


def save_plot(groups: list[tuple[str, list[dict[str, Any]]]], path: Path) -> None:
    """Two panels, ratio and time over limit, for each titled group of rows."""
    counts = [len(rows) for _, rows in groups]
    height = HEIGHT_OF_ROW * sum(counts) + 0.6 * len(groups) + 0.6
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(
        len(groups), 2, squeeze=False, sharex="col", sharey="row", height_ratios=counts
    )
    for (ratios, times), (title, rows) in zip(panels, groups, strict=True):
        draw_ratios(ratios, rows)
        draw_times(times, rows)
        ratios.set_title(title, loc="left", fontsize=9, fontweight="bold")
        ratios.set_yticks(range(len(rows)), [row["cell"] for row in rows], fontsize=7)
        ratios.invert_yaxis()
    panels[-1, 0].set_xlabel("time of the fastest peer (its colour) / time of cylstm")
    panels[-1, 1].set_xlabel("time / least time the machine could take")
    known = {}
    for panel in panels[:, 1]:
        handles, names = panel.get_legend_handles_labels()
        known |= dict(zip(names, handles, strict=True))
    figure.legend(known.values(), known, loc="outside upper right", ncols=len(NAMES), fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_ratios(panel: Axes, rows: list[dict[str, Any]]) -> None:
    """A bar for each cell, from 1, where we are as fast as the fastest peer."""
    for k, row in enumerate(rows):
        if row["ratio"]:
            panel.barh(k, row["ratio"] - 1, left=1, color=COLOURS[row["best"]])
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:g}")
    panel.tick_params(axis="x", which="both", labelsize=7)
    panel.grid(axis="x", alpha=0.3)


def draw_times(panel: Axes, rows: list[dict[str, Any]]) -> None:
    """A dot for each library and cell; 1 is the limit."""
    for library, name in reversed(NAMES.items()):
        points = [(row["libraries"][library]["minimum"] / row["limit"], k)
                  for k, row in enumerate(rows) if library in row["libraries"]]  # fmt: skip
        if points:
            size = 26 if library == OURS else 14
            panel.scatter(*zip(*points, strict=True), s=size, label=name, color=COLOURS[library])
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    panel.tick_params(axis="both", labelsize=7)
    panel.grid(axis="x", alpha=0.3)
