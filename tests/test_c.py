"""The tests in C (tests/c) on this machine; `python -m tools.cross` runs them on others."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cylstm.core import team

ROOT = Path(__file__).parents[1]
pytest.importorskip("Cython")
pytestmark = [
    pytest.mark.skipif(not shutil.which("cc"), reason="no compiler"),
    pytest.mark.skipif(not (ROOT / "tools").exists(), reason="of the source tree"),
    pytest.mark.skipif(sys.platform == "win32", reason="the compiler takes other options"),
]


def test_the_c_sources_alone(monkeypatch, tmp_path):
    """Teams sleep on conditions here, as elsewhere than on Linux; the Python tests use futexes."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)
    from tools.driver import build

    machine, system = platform.machine().lower(), platform.system()
    flags = ["-O1", "-DCYLSTM_NO_FUTEX"]  # O3 takes minutes; the Python tests run what it made
    program = build(["cc"], tmp_path, machine, system, flags=flags, isas=["baseline"])
    done = subprocess.run([program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "baseline" in done.stdout
    assert done.stdout.endswith(" 0 failed\n")


@pytest.mark.parametrize(
    ("variable", "threads"),
    [("3", 3), (" 4 ", 4), ("5,2", 5), ("0", 9), ("-1", 9), ("many", 9), ("", 9), (None, 9)],
)
def test_threads_that_the_environment_wants(variable, threads):
    assert team.threads_wanted(variable, 9) == threads
