"""The peers' environment, which the command makes for itself."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def default_folder() -> Path:
    """One for each set of requirements and Python version."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / f"cylstm-peers-{key}"


def python_of(folder: Path) -> str:
    """The environment's Python; the environment is made if it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        make_environment(folder)
    return str(python)


def make_environment(folder: Path) -> None:
    """Install the requirements one by one, so that one that cannot be had stops no other."""
    print(f"Making the peers' environment in {folder}: some minutes and gigabytes, once")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    for requirement in filter(None, lines):
        command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", requirement]
        done = "installed" if subprocess.run(command).returncode == 0 else "CANNOT be installed"
        print(f"  {requirement}: {done}")
