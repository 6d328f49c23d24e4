"""What is told of a run: lines while it goes on, and files in the end."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.benchmarks.common import Shape
from benchmarks.peers.contest import Entry
from benchmarks.peers.libraries import NAMES, OURS


def new_run() -> dict[str, Any]:
    """A run without results: where and when."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": next((x.partition(": ")[2] for x in cpuinfo if x.startswith("model name")), ""),
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
    threads: int,
    least: float,
    entries: dict[str, Entry],
    failed: dict[str, str],
) -> dict[str, Any]:
    """A cell's row; the ratio is that of the fastest peer's time to ours."""
    times = {library: entry.minimum for library, entry in entries.items()}
    ours, theirs = times.pop(OURS), min(times.values(), default=None)
    return {
        "cell": str(shape),
        "training": training,
        "threads": threads,
        "ratio": theirs and theirs / ours,
        "limit": least,
        "share": least / ours,
        "libraries": {
            library: {"minimum": entry.minimum, "median": entry.median, **asdict(entry)}
            for library, entry in entries.items()
        },
        "failed": failed,
    }


def heading(threads: int, libraries: list[str]) -> str:
    names = "".join(f"{NAMES[library]:>14}" for library in libraries)
    return f"\n{threads} thread(s), us{'':35}{names}   ratio   limit us  share"


def line(row: dict[str, Any], libraries: list[str]) -> str:
    found = row["libraries"]
    times = "".join(
        f"{found[x]['minimum'] * 1e6:14.1f}" if x in found else f"{'-':>14}" for x in libraries
    )
    ratio = f"{row['ratio']:8.3f}" if row["ratio"] else f"{'-':>8}"
    return f"{row['cell']:53}{times}{ratio}{row['limit'] * 1e6:11.1f}{row['share']:7.1%}"


def write(run: dict[str, Any], folder: Path) -> None:
    pass
