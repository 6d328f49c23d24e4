"""Tables of the documentation, made of results that were kept.

`python -m benchmarks.peers.whole`, `.quantized` and `.accuracy` keep theirs with `--output
benchmarks/peers/results`; `python -m benchmarks.peers.tables` writes them into the pages, between
their marks. With `--check` it writes nothing, and fails where a page is not as its results are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/peers/results"
PAGES = {
    "whole": "docs/benchmarks.md",
    "quantized": "docs/benchmarks.md",
    "quantized-2-threads": "docs/benchmarks.md",
    "accuracy": "docs/accuracy.md",
}


def as_text(headers: list[str], rows: list[list[Any]]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def keep(folder: Path | None, name: str, headers: list[str], rows: list[list[Any]]) -> None:
    """Keep a table, where there is a folder."""
    if folder is not None:
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        text = f'{{"headers": {json.dumps(headers)},\n "rows": [\n{lines}\n]}}\n'
        (folder / f"{name}.json").write_text(text)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Give a command the option."""
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to keep the table")


def renewed(text: str, name: str, results: Path = RESULTS) -> str:
    """Return a page's text with the table that is kept."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, begins, rest = text.partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"expected the marks {begin} and {end}")
    kept = json.loads((results / f"{name}.json").read_text())
    return f"{before}{begin}\n\n{as_text(kept['headers'], kept['rows'])}\n\n{end}{after}"


def stale(root: Path = ROOT) -> list[str]:
    """Return the names of the tables that are not as their results are."""
    return [
        name
        for name, page in PAGES.items()
        if renewed((root / page).read_text(), name) != (root / page).read_text()
    ]


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.peers.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is stale")
    if parser.parse_args().check:
        names = stale()
        sys.exit(f"not as their results are: {', '.join(names)}" if names else 0)
    for name, page in PAGES.items():
        path = ROOT / page
        path.write_text(renewed(path.read_text(), name))


if __name__ == "__main__":
    main()
