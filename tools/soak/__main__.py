"""Run cylstm for ten minutes, and harm it: shapes, loads, kills, forks, no memory, bad files.

    python -m tools.soak                   # all; exits 1 if anything fails
    python -m tools.soak --scale 0.1       # a tenth of each
    python -m tools.soak --only kill       # those whose names hold "kill"

Each check runs in a process of its own, so that a crash is a failure like others, and prints what
it did. A table of all verdicts comes last.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

from tools.soak import damage, faults, kills, steady
from tools.soak.common import Check, Failed, Skipped

CHECKS: dict[str, Check] = {**steady.CHECKS, **kills.CHECKS, **faults.CHECKS, **damage.CHECKS}
FAILED, SKIPPED = 1, 77
LIMIT = 1200  # seconds, for one check


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers (default: 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="checks whose names hold it")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # one, in this process
    given = parser.parse_args()
    if given.run:
        return run(given.run, given.scale)
    rows = [supervised(name, given.scale) for name in CHECKS if given.only in name]
    if not rows:
        parser.error(f"--only: expected a part of one of {', '.join(CHECKS)}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    return int(any(row[1].startswith("FAILED") for row in rows))


def run(name: str, scale: float) -> int:
    """Run one check here; its last line says what it did."""
    try:
        print(CHECKS[name].run(scale))
    except Skipped as reason:
        print(reason)
        return SKIPPED
    except Failed as problem:
        print(problem)
        return FAILED
    return 0


def supervised(name: str, scale: float) -> tuple[str, str, str, str]:
    """Run one check in a process of its own; return its row of the table."""
    check, begin = CHECKS[name], time.monotonic()
    command = [*check.before(), sys.executable, "-m", "tools.soak", "--run", name]
    process = subprocess.Popen(
        [*command, "--scale", str(scale)],
        env={**os.environ, "OMP_NUM_THREADS": "2", **check.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\nhangs: no end after {LIMIT} s"
    finally:  # Ctrl-C
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    seconds = f"{time.monotonic() - begin:.0f} s"
    lines = (out.strip() or err.strip() or "nothing said").splitlines()
    verdict = {0: "ok", SKIPPED: "skipped"}.get(process.returncode)
    if verdict is None:
        ended = signal.Signals(-process.returncode).name if process.returncode < 0 else ""
        verdict = f"FAILED {ended}".strip()
        print(out, err, sep="\n", file=sys.stderr)
    row = name, verdict, seconds, lines[-1]
    print(*row, sep="  ", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
