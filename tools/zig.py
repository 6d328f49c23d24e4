"""Zig's Clang as the compiler of a build of Python's: ``CC="python tools/zig.py -target NAME"``."""

from __future__ import annotations

import os
import sys

__all__ = ["as_zig"]


def as_zig(flags: list[str]) -> list[str]:
    """Return flags of GCC's as Zig's compiler has them, which knows no -march of ARM's.

    Those of the machine that a Python was built on are none of the target's.
    """
    own = [flag.replace("-march=armv8.2-a+", "-mcpu=generic+") for flag in flags]
    return [flag for flag in own if not flag.startswith(("-L/", "-Wl,-rpath", "-Wl,-R"))]


if __name__ == "__main__":
    command = [sys.executable, "-m", "ziglang", "cc", *as_zig(sys.argv[1:])]
    os.execv(sys.executable, command)
