"""Run the tests in C (tests/c) under a sanitizer: ``python -m tools.sanitize thread``.

They cover kernels, arena, packing, and the team of threads called from several threads and forks,
with the system's futex and without. Any report is an error; nothing is suppressed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from pathlib import Path

from tools.driver import ROOT, build

__all__ = ["main"]

FLAGS = {
    "address": ["-fsanitize=address"],
    "undefined": ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}
# One check asks for more memory than there is; the child of a fork starts threads of its own.
OPTIONS = {
    "ASAN_OPTIONS": "allocator_may_return_null=1",
    "TSAN_OPTIONS": "allocator_may_return_null=1 die_after_fork=0",
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.sanitize", description=__doc__)
    parser.add_argument("sanitizer", choices=FLAGS)
    parser.add_argument("--isas", nargs="*", default=["baseline"], help="instruction sets")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/sanitize")
    arguments = parser.parse_args()
    machine, system = platform.machine().lower(), platform.system()
    for variant in ([], ["-DCYLSTM_NO_FUTEX"]):
        program = build(
            [os.environ.get("CC", "cc")],
            arguments.folder / arguments.sanitizer,
            machine,
            system,
            flags=["-O1", "-g", "-fno-omit-frame-pointer", *FLAGS[arguments.sanitizer], *variant],
            isas=arguments.isas,
        )
        subprocess.run([str(program)], env=os.environ | OPTIONS, check=True)


if __name__ == "__main__":
    main()
