"""Run the tests in C and in Python under a sanitizer; any report is an error.

    python -m tools.sanitize address                  # all that is worth while; also: undefined
    python -m tools.sanitize thread                   # the tests with threads
    python -m tools.sanitize thread --only c --isas baseline
    python -m tools.sanitize address --isas avx2 --products packed -- -n 2 tests/test_bits.py

The tests in C (tests/c) cover kernels, arena, packing, and the team of threads called from several
threads and forks, with the system's futex and without. For those in Python the modules are built in
build/sanitize-*/lib, beside none of the ordinary ones, and run once for each instruction set of
this machine and each product. What is skipped, and what reports are suppressed, stands in
skipped.py and thread.supp, each with its reason.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

from tools.driver import ROOT, build
from tools.sanitize.modules import Modules

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
# What calls the compiled code in each of its ways; the other files would add little, and hours.
CORE = (
    "forward", "gradients", "lengths", "stream", "bits", "quantized", "affine", "attention",
    "lookup", "optimizers", "time_loop", "safetensors", "torch_files",
)  # fmt: skip
# Small models in threads; of the larger ones of these files each test would take minutes.
THREADS = (
    "test_pool.py",
    "test_threads.py",
    "test_production.py::test_threads_share_one_lstm",
    "test_production.py::test_forked_child",
    "test_production.py::test_two_threads_in_one_stream_do_no_harm",
    "test_whole_steps.py::test_readers_at_once_beside_a_trainer",
    "test_whole_steps.py::test_readers_come_together_and_a_writer_alone",
    "test_whole_steps.py::test_turns_are_in_order",
    "test_whole_steps.py::test_a_stream_forked_amid_a_step",
)


def understood(arguments: list[str]) -> argparse.Namespace:
    """Return the options; `pytest` has what follows a ``--``, which argparse loses after lists."""
    own = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m tools.sanitize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s {address,undefined,thread} [options] [-- pytest's arguments]",
    )
    parser.add_argument("sanitizer", choices=FLAGS)
    parser.add_argument("--only", choices=("c", "python"), help="the tests in one language")
    parser.add_argument("--isas", nargs="+", help="instruction sets (default: all of this machine)")
    parser.add_argument("--products", nargs="+", default=["packed", "blas"])
    given = parser.parse_args(arguments[:own])
    given.pytest = arguments[own + 1 :]
    return given


def main() -> int:
    """Run the command."""
    given = understood(sys.argv[1:])
    isas = given.isas or machines_isas()
    folder = ROOT / f"build/sanitize-{given.sanitizer}"
    failures = []
    if given.only != "python":
        failures += in_c(given.sanitizer, isas, folder / "c")
    if given.only != "c":
        modules = Modules(given.sanitizer, FLAGS[given.sanitizer], folder)
        modules.build(isas)
        for isa in isas:
            for product in given.products:
                first = isa == isas[0] and product == given.products[0]
                arguments = given.pytest or tests(given.sanitizer, whole=first)
                failures += modules.run(arguments, isa, product)
    print(*(failures or ["no report"]), sep="\n")
    return int(bool(failures))


def machines_isas() -> list[str]:
    """Return the instruction sets of this machine, as the ordinary cylstm knows them."""
    from cylstm.core import kernels

    return list(kernels.ISAS)


def tests(sanitizer: str, *, whole: bool) -> list[str]:
    """Return what pytest is to run: the whole suite, or what concerns the sanitizer."""
    if sanitizer == "thread":
        return [f"tests/{name}" for name in THREADS]
    return ["tests"] if whole else [f"tests/test_{name}.py" for name in CORE]


def in_c(sanitizer: str, isas: list[str], folder: Path) -> list[str]:
    """Run the tests in C; return what failed."""
    machine, system = platform.machine().lower(), platform.system()
    failures = []
    for name, variant in {"futex": [], "conditions": ["-DCYLSTM_NO_FUTEX"]}.items():
        program = build(
            [os.environ.get("CC", "cc")],
            folder / name,
            machine,
            system,
            flags=["-O1", "-g", "-fno-omit-frame-pointer", *FLAGS[sanitizer], *variant],
            isas=isas,
        )
        done = subprocess.run([str(program)], env=os.environ | OPTIONS, check=False)
        if done.returncode:
            failures.append(f"{program}: ended with {done.returncode}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
