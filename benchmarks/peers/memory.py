"""`python -m benchmarks.peers.memory`: the most memory of a training step, beside PyTorch's.

Each number is the least of some processes, which take one step each: the first, in which weights
are packed. Time is measured elsewhere, in processes that reuse the memory they have.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from tqdm import tqdm

from benchmarks.benchmarks import common
from benchmarks.peers import report
from benchmarks.peers.contest import peers_of
from benchmarks.peers.environment import default_folder, python_of
from benchmarks.peers.libraries import OURS

PEER = "pytorch"  # JAX would be measured with its compiler


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.peers.memory", description=__doc__)
    add = parser.add_argument
    add("--cells", default="", metavar="REGEX", help="only cells whose name matches")
    add("--processes", type=int, default=3, help="of each library and cell (default: 3)")
    add("--environment", type=Path, default=default_folder(), metavar="FOLDER",
        help="the peers' virtual environment, made if missing (default: %(default)s)")  # fmt: skip
    add("--output", type=Path, default=Path("build/peers"), metavar="FOLDER")
    return parser.parse_args()


def peaks(shape: common.Shape, pythons: dict[str, str], processes: int) -> dict[str, int]:
    """Bytes of each library that is there."""
    problem = common.make_problem(shape, training=True)
    found: dict[str, list[int]] = {}
    for _ in range(processes):
        with peers_of(pythons, 1) as (peers, _):
            for peer in peers:
                found.setdefault(peer.library, []).append(peer.ask("peak", problem))
    return {library: min(bytes_) for library, bytes_ in found.items()}


def main() -> None:
    given = arguments()
    pythons = {OURS: sys.executable, PEER: python_of(given.environment)}
    run = report.new_run()
    with peers_of(pythons, 1) as (peers, run["absent"]):
        run["versions"] = {peer.library: peer.versions for peer in peers}
    shapes = [shape for shape in common.TRAINING if re.search(given.cells, str(shape))]
    run["memory"] = [
        {"cell": str(shape), "bytes": peaks(shape, pythons, given.processes)}
        for shape in tqdm(shapes, unit="cell", dynamic_ncols=True)
    ]
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "memory.json").write_text(json.dumps(run, indent=1))
    print(report.memory_table(run["memory"]))
    print(f"\nKept in {given.output}: memory.json")


if __name__ == "__main__":
    main()
