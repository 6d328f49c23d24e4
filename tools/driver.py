"""The tests in C (tests/c), built for a target with the flags and instruction sets of setup.py."""

from __future__ import annotations

import runpy
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.zig import as_zig

__all__ = ["ROOT", "build"]

ROOT = Path(__file__).parents[1]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]


def build(
    compiler: Sequence[str],
    folder: Path,
    machine: str,
    system: str,
    *,
    flags: Sequence[str] = (),
    isas: Sequence[str] | None = None,
) -> Path:
    """Compile src/ and tests/c, without a warning, and link the program.

    Parameters
    ----------
    compiler : list of str
        The command, which takes GCC's options.
    folder : path
        For the objects and the program.
    machine, system : str
        What it is for, as `platform.machine` and `platform.system` say it.
    flags : list of str, optional
        Beside those of setup.py.
    isas : list of str, optional
        Of the instruction sets only these and baseline; by default all.
    """
    setup = runpy.run_path(str(ROOT / "setup.py"))
    sets = setup["instruction_sets"](machine, system)
    if isas is not None:
        sets = setup["wanted"](sets, " ".join(isas))
    have = [f"-DHAVE_{isa}" for isa in sets]
    common = [*compiler, *setup["FLAGS"], *WARNINGS, *flags, f"-I{ROOT / 'src'}"]
    folder.mkdir(parents=True, exist_ok=True)
    commands = {}
    for source in sorted([*(ROOT / "src").glob("*.c"), *(ROOT / "tests/c").glob("*.c")]):
        if source.name != "kernels.c" or source.parent.name == "c":
            name = f"{source.parent.name}_{source.stem}.o"
            commands[folder / name] = [*common, *have, "-c", str(source)]
    for isa, (width, own, formats) in sets.items():
        for each in formats:
            macros = [
                f"-D{name}" if value is None else f"-D{name}={value}"
                for name, value in setup["macros_of"](isa, width, each)
            ]
            named = [*(as_zig(list(own)) if "ziglang" in compiler else own), *macros]
            kernels = str(ROOT / "src/kernels.c")
            commands[folder / f"{isa}_{each}.o"] = [*common, *named, "-c", kernels]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ([*command, "-o", str(name)] for name, command in commands.items())))
    program = folder / ("driver.exe" if system == "Windows" else "driver")
    libraries = [] if system == "Windows" else ["-lm", "-pthread"]
    run([*compiler, *flags, *map(str, commands), "-o", str(program), *libraries])
    return program


def run(command: Sequence[str]) -> None:
    """Run a compiler; its words are the error's."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
