"""What is told of runs: lines while one goes on; tables and a plot in the end.

`python -m benchmarks.peers.report RUN.json ...` makes the tables and the plot of runs that were
kept, and with `--readme` writes them into it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import groupby
from math import nan
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from tabulate import tabulate

from benchmarks.benchmarks.common import Shape
from benchmarks.benchmarks.limit import Machine
from benchmarks.peers.contest import Entry
from benchmarks.peers.libraries import NAMES, OURS
from benchmarks.peers.plot import save_plot

Row = dict[str, Any]
MARKS = "<!-- peers:begin -->", "<!-- peers:end -->"


def new_run() -> dict[str, Any]:
    """A run without results: where and when."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(": ")[2] for line in cpuinfo if line.startswith("model name"))
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": next(models, platform.machine()),
        "cpus": sorted(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "load": os.getloadavg(),
        "versions": {},
        "absent": {},
        "machines": [],
        "results": [],
    }


def result(
    shape: Shape,
    training: bool,
    machine: Machine,
    least: float,
    entries: dict[str, Entry],
    failed: dict[str, str],
) -> Row:
    """A cell's row: the ratio is the fastest peer's time over ours, the share the limit's."""
    times = {library: entry.minimum for library, entry in entries.items()}
    ours = times.pop(OURS)
    best = min(times, key=times.get, default=None)
    return {
        "cell": str(shape),
        "training": training,
        "threads": machine.threads,
        "best": best,
        "ratio": best and times[best] / ours,
        "limit": least,
        "share": least / ours,
        "libraries": {
            library: {"minimum": entry.minimum, "median": entry.median, **asdict(entry)}
            for library, entry in entries.items()
        },
        "failed": failed,
    }


# While a run goes on


def heading(threads: int, libraries: list[str]) -> str:
    names = "".join(f"{NAMES[library]:>14}" for library in libraries)
    return f"\n{f'threads: {threads}; times in us':32}{names}   ratio      limit  share"


def line(row: Row, libraries: list[str]) -> str:
    times = "".join(f"{microseconds(row, library):>14}" for library in libraries)
    return f"{row['cell']:32}{times}{ratio(row):>8}{in_us(row['limit']):>11}{row['share']:7.1%}"


def microseconds(row: Row, library: str | None, which: str = "minimum") -> str:
    entry = row["libraries"].get(library)
    return in_us(entry[which]) if entry else "-"


def ratio(row: Row) -> str:
    return "-" if row["ratio"] is None else f"{row['ratio']:.3f}"


def in_us(seconds: float) -> str:
    return f"{seconds * 1e6:,.{2 if seconds < 1e-5 else 1 if seconds < 1e-4 else 0}f}"


# In the end


def grouped(runs: list[dict]) -> Iterator[tuple[bool, int, list[Row]]]:
    """The rows of each (training, threads)."""

    def kind(row: Row) -> tuple[bool, int]:
        return row["training"], row["threads"]

    rows = sorted((row for run in runs for row in run["results"]), key=kind)
    for (training, threads), group in groupby(rows, kind):
        yield training, threads, list(group)


def title(training: bool, threads: int) -> str:
    what = "Training: forward and backward" if training else "Inference"
    return f"{what}, {threads} thread{'s' * (threads > 1)}"


def full_table(rows: list[Row]) -> str:
    """Minimum and median of every library."""
    libraries = [name for name in NAMES if any(name in row["libraries"] for row in rows)]
    table = [
        [row["cell"]]
        + [f"{microseconds(row, x)} ({microseconds(row, x, 'median')})" for x in libraries]
        + [ratio(row), in_us(row["limit"]), f"{row['share']:.0%}"]
        for row in rows
    ]
    names = [NAMES[library] for library in libraries]
    return as_markdown(table, ["cell", *names, "ratio", "limit", "share"])


def short_table(rows: list[Row]) -> str:
    """Ours against the fastest peer."""
    table = [
        [row["cell"], microseconds(row, OURS), microseconds(row, row["best"]),
         NAMES.get(row["best"], "-"), ratio(row), f"{row['share']:.0%}"]
        for row in rows
    ]  # fmt: skip
    return as_markdown(table, ["cell", "cylstm", "fastest peer", "", "ratio", "of the limit"])


def memory_table(rows: list[Row]) -> str:
    """Megabytes of every library, and ours as a share of each peer's."""
    libraries = [name for name in NAMES if any(name in row["bytes"] for row in rows)]
    table = []
    for row in rows:
        ours, *theirs = (row["bytes"].get(library, nan) for library in libraries)
        sizes = [f"{size / 1e6:.2f}" for size in (ours, *theirs)]
        table.append([row["cell"], *sizes, *(f"{ours / size:.2f}" for size in theirs)])
    names = [NAMES[library] for library in libraries]
    headers = ["cell", *(f"{name}, MB" for name in names), *(f"of {name}'s" for name in names[1:])]
    return as_markdown(table, headers)


def as_markdown(table: list[list[str]], headers: list[str]) -> str:
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(table, headers, tablefmt="github", colalign=align, disable_numparse=True)


def summary(runs: list[dict]) -> str:
    """The geometric mean and the least ratio of each group of cells."""
    table = []
    for training, threads, rows in grouped(runs):
        ratios = [row["ratio"] for row in rows if row["ratio"]]
        if ratios:
            table.append([title(training, threads), str(len(ratios)),
                          f"{geometric_mean(ratios):.2f}", f"{min(ratios):.2f}"])  # fmt: skip
    return as_markdown(table, ["faster than the fastest peer by", "cells", "mean", "least"])


def provenance(run: dict) -> str:
    """Where and when, with which versions, and what the machine could do."""
    versions = {name: v for told in run["versions"].values() for name, v in told.items()}
    text = f"{run['cpu']}, {run['system']}, {run['when']}; "
    text += ", ".join(f"{name} {versions[name]}" for name in sorted(versions, key=str.lower)) + "."
    for machine in run["machines"]:
        reads = ", ".join(f"{x['name']} {x['rate'] / 1e9:.0f}" for x in machine["levels"])
        text += (
            f" Measured limits of a thread, {machine['threads']} at work: "
            f"{machine['flops'] / 1e9:.0f} GFLOP/s; GB/s read from {reads}."
        )
    missing = [f"{NAMES[library]} ({reason})" for library, reason in run["absent"].items()]
    return text + (f" Absent: {', '.join(missing)}." if missing else "")


def write(runs: list[dict], folder: Path) -> None:
    """`peers.md` and `peers.svg`."""
    parts = [
        "# cylstm and its peers",
        "Made by `python -m benchmarks.peers`. Minimum (median) of a call in microseconds, over "
        "rounds in which the libraries take turns. The ratio is the fastest peer's minimum over "
        "ours; the limit is the least time in which this machine could do it "
        "(`benchmarks/benchmarks/limit.py`), the share how near we are. T = 1 is a stream's step.",
        summary(runs),
        "![ratios, and times over the limit](peers.svg)",
    ]
    for training, threads, rows in grouped(runs):
        parts += [f"## {title(training, threads)}", full_table(rows)]
    for run in runs:
        if run.get("memory"):
            parts += ["## The most memory of a training step", memory_table(run["memory"])]
    parts += ["## Where and when", *map(provenance, runs)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.md").write_text("\n\n".join(parts) + "\n")
    save_plot([(title(*kind), rows) for *kind, rows in grouped(runs)], folder / "peers.svg")


def write_readme(runs: list[dict], folder: Path, readme: Path) -> None:
    """Put the summary, the plot and the tables for one thread between the marks of `readme`."""
    where = Path(os.path.relpath(folder, readme.parent))
    parts = [
        f"Measured by `python -m benchmarks.peers` on {runs[0]['when'][:10]}, {runs[0]['cpu']}; "
        f"every library, cell and version is in [{where}/peers.md]({where}/peers.md).",
        summary(runs),
        f"![ratios, and times over the limit]({where}/peers.svg)",
    ]
    for training, threads, rows in grouped(runs):
        if threads == 1:
            name = f"<summary>{title(training, threads)}, microseconds</summary>"
            parts += [f"<details>{name}", short_table(rows), "</details>"]
    readme.write_text(between_marks(readme.read_text(), "\n\n".join(parts)))


def between_marks(text: str, new: str) -> str:
    """Put `new` between the marks in the text."""
    begin, end = MARKS
    before, begins, rest = text.partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"expected the marks {begin} and {end}")
    return f"{before}{begin}\n\n{new}\n\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.peers.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json")
    parser.add_argument("--output", type=Path, default=Path("build/peers"), metavar="FOLDER")
    parser.add_argument("--readme", type=Path, metavar="FILE")
    given = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in given.runs]
    write(runs, given.output)
    if given.readme:
        write_readme(runs, given.output, given.readme)


if __name__ == "__main__":
    main()
