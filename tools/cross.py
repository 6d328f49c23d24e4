"""Compile the C sources for every platform, and run their tests where this machine can.

`python -m tools.cross` does all targets, with Zig's Clang (``pip install ziglang``);
``native`` is this machine's ``cc``. aarch64-linux runs under qemu-aarch64, Windows under Wine.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tools.driver import ROOT, build

__all__ = ["TARGETS", "main"]

# As Zig names it: (machine, system).
TARGETS = {
    "native": (platform.machine().lower(), platform.system()),
    "aarch64-linux-gnu": ("aarch64", "Linux"),
    "aarch64-linux-musl": ("aarch64", "Linux"),
    "x86_64-linux-musl": ("x86_64", "Linux"),
    "x86_64-linux-gnu.2.17": ("x86_64", "Linux"),
    "aarch64-macos": ("arm64", "Darwin"),
    "x86_64-macos": ("x86_64", "Darwin"),
    "x86_64-windows-gnu": ("x86_64", "Windows"),
}


def compiler_for(target: str) -> list[str]:
    """Return the command that compiles for it."""
    if target == "native":
        return [os.environ.get("CC", "cc")]
    if find_spec("ziglang") is None:
        raise SystemExit(f"{target}: expected ziglang: python -m pip install ziglang")
    return [sys.executable, "-m", "ziglang", "cc", "-target", target]


def runner_for(target: str) -> list[str] | None:
    """Return what runs a target's programs here; None for nothing."""
    machine, system = TARGETS[target]
    here = TARGETS["native"]
    if system == "Windows" and here[1] != "Windows":
        return [wine] if (wine := shutil.which("wine")) else None
    if system != here[1]:
        return None
    if machine == here[0]:
        return []
    emulator = shutil.which(f"qemu-{machine}")
    return None if emulator is None else [emulator, "-L", f"/usr/{machine}-linux-gnu"]


def arguments_for(runner: list[str]) -> list[str]:
    """Return what the program is told: qemu ends where a process with threads forks."""
    return ["no-fork"] if runner and "qemu" in runner[0] else []


def check(target: str, folder: Path, **options: object) -> str:
    """Build for a target, run where that can be, and return what came of it."""
    program = build(compiler_for(target), folder, *TARGETS[target], **options)  # type: ignore[arg-type]
    runner = runner_for(target)
    if runner is None:
        return "compiled; nothing here runs it"
    done = subprocess.run(
        [*runner, str(program), *arguments_for(runner)],
        env=os.environ | {"WINEDEBUG": "-all"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{target}: {done.returncode}\n{done.stdout}{done.stderr}")
    *isas, result = done.stdout.split("\n")[:-1]
    return f"{result} ({', '.join(isas).strip()})"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.cross", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--folder", type=Path, default=ROOT / "build/cross")
    arguments = parser.parse_args()
    for target in arguments.targets or TARGETS:
        if target not in TARGETS:
            parser.error(f"expected one of {', '.join(TARGETS)}, got {target!r}")
        print(f"{target}: {check(target, arguments.folder / target)}", flush=True)


if __name__ == "__main__":
    main()
