"""`python -m benchmarks.peers`: how cylstm compares with other libraries, here and now."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.benchmarks import common, limit
from benchmarks.peers import report
from benchmarks.peers.contest import Peer, contest, peers_of
from benchmarks.peers.environment import default_folder, python_of
from benchmarks.peers.libraries import NAMES, OURS, TRAINERS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    add = parser.add_argument
    add("--threads", type=int, nargs="+", default=[1], help="one run for each (default: 1)")
    add("--training", action="store_true", help="forward and backward instead of inference")
    add("--cells", default="", metavar="REGEX", help="only cells whose name matches")
    add("--peers", metavar="A,B", type=lambda text: text.split(","),
        help=f"of {', '.join(list(NAMES)[1:])} (default: all that can do it)")  # fmt: skip
    add("--rounds", type=int, default=7, help="turns of each library (default: 7)")
    add("--seconds", type=float, default=0.2, help="of a turn (default: 0.2)")
    add("--quick", action="store_true", help="two short rounds, to try the command")
    add("--environment", type=Path, default=default_folder(), metavar="FOLDER",
        help="the peers' virtual environment, made if missing (default: %(default)s)")  # fmt: skip
    add("--output", type=Path, default=Path("build/peers"), metavar="FOLDER")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds = 2, 0.01
    if max(given.threads) > len(os.sched_getaffinity(0)):
        parser.error(f"--threads: this process may use {len(os.sched_getaffinity(0))} CPUs")
    able = [name for name in (TRAINERS if given.training else NAMES) if name != OURS]
    given.peers = given.peers or able
    if not set(given.peers) <= set(able):
        parser.error(f"--peers: expected some of {','.join(able)}, got {','.join(given.peers)}")
    return given


def main() -> None:
    given = arguments()
    grid = common.TRAINING if given.training else common.INFERENCE
    shapes = [shape for shape in grid if re.search(given.cells, str(shape))]
    theirs = python_of(given.environment)
    pythons = {OURS: sys.executable} | dict.fromkeys(given.peers, theirs)
    run = report.new_run()
    with tqdm(total=len(shapes) * len(given.threads), unit="cell", dynamic_ncols=True) as progress:
        for threads in given.threads:
            with peers_of(pythons, threads) as (peers, absent):
                run["versions"] |= {peer.library: peer.versions for peer in peers}
                run["absent"] |= absent
                for library, reason in absent.items():
                    progress.write(f"{NAMES[library]} is left out: {reason}")
                if OURS in absent:
                    sys.exit("nothing to compare: python -m pip install -e .")
                measure(run, shapes, given, threads, peers, progress)
    report.write([run], given.output)
    name = "training.json" if given.training else "inference.json"
    (given.output / name).write_text(json.dumps(run, indent=1))
    print(f"\nKept in {given.output}: {name}, peers.md, peers.svg")


def measure(
    run: dict[str, Any],
    shapes: list[common.Shape],
    given: argparse.Namespace,
    threads: int,
    peers: list[Peer],
    progress: tqdm,
) -> None:
    """Measure the machine, then each cell, with so many threads; add to `run`."""
    libraries = [peer.library for peer in peers]
    machine = limit.measure(run["versions"][OURS]["ISA"], threads)
    run["machines"].append(asdict(machine))
    progress.write(report.heading(threads, libraries))
    for shape in shapes:
        progress.set_postfix_str(str(shape))
        entries, failed = contest(shape, given.training, peers, given.rounds, given.seconds)
        if OURS in entries:
            least = limit.least_seconds(shape, machine, given.training)
            row = report.result(shape, given.training, machine, least, entries, failed)
            run["results"].append(row)
            progress.write(report.line(row, libraries))
        else:
            progress.write(str(shape))
        for library, reason in failed.items():
            progress.write(f"    {NAMES[library]}: {reason}")
        progress.update()


if __name__ == "__main__":
    main()
