"""What a report of a problem is told."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import cylstm
from cylstm.core import kernels, team

SECTIONS = [
    "cylstm", "Python", "Platform", "Kernels", "Threads", "Build", "BLAS", "Packages",
    "Environment",
]  # fmt: skip


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("SECRET", "xyzzy")
    return cylstm.show_config(mode="dicts")


def test_it_tells_what_is_used(config):
    assert list(config) == SECTIONS
    assert config["Kernels"] == {
        "isa": kernels.ISA,
        "isas": list(kernels.ISAS),
        "product": kernels.PRODUCT,
    }
    assert config["Python"]["version"].startswith(platform.python_version())
    assert config["Platform"]["machine"] == platform.machine()
    assert config["Packages"]["numpy"]
    assert config["cylstm"]["folder"] == str(Path(cylstm.__file__).parent)
    assert config["Environment"]["OMP_WAIT_POLICY"] == "passive"
    assert "xyzzy" not in str(config)


def test_it_tells_what_it_was_built_with(config):
    assert config["Build"]["compiler"].split()[0] in ("GCC", "Clang", "unknown")
    assert "-ffp-contract=fast" in config["Build"]["flags"]
    assert config["Build"]["Cython"].startswith("3.")


def test_it_prints_what_it_returns(config, capsys):
    assert cylstm.show_config() is None
    shown = capsys.readouterr().out
    assert "xyzzy" not in shown
    for title, lines in config.items():
        assert f"{title}:\n" in shown
        for name in lines:
            assert f"  {name}: " in shown
    assert f"  isas: {', '.join(kernels.ISAS)}\n" in shown


def test_what_is_absent_is_said(monkeypatch, capsys):
    monkeypatch.setattr("cylstm.config.OPTIONAL", ("no-such-package",))
    assert cylstm.show_config(mode="dicts")["Packages"]["no-such-package"] is None
    cylstm.show_config()
    assert "  no-such-package: not installed\n" in capsys.readouterr().out


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode: expected 'stdout' or 'dicts', got 'json'"):
        cylstm.show_config(mode="json")


def test_where_the_threads_come_from():
    code = (
        "from cylstm.core import team; print(team.where_threads_come_from());"
        "team.set_num_threads(1); print(team.where_threads_come_from());"
    )
    packages = str(Path(cylstm.__file__).parents[1])
    told = {}
    for number in ("", "1"):
        environment = os.environ | {"PYTHONPATH": packages, "OMP_NUM_THREADS": number}
        if not number:
            del environment["OMP_NUM_THREADS"]
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=packages,
            capture_output=True,
            text=True,
            check=True,
        )
        told[number] = done.stdout.splitlines()
    assert told["1"] == ["OMP_NUM_THREADS", "set_num_threads"]
    assert told[""][0] != "OMP_NUM_THREADS"
    assert told[""][1] == "set_num_threads"


def test_a_limit_of_a_thread_is_told():
    before = team.get_num_threads()
    if before == 1:
        pytest.skip("there is one thread")
    team.limit_threads_here(1)
    try:
        assert team.where_threads_come_from() == "a limit of this thread"
    finally:
        team.limit_threads_here(0)


def test_it_is_loaded_when_it_is_used():
    packages = str(Path(cylstm.__file__).parents[1])
    code = "import sys, cylstm; assert 'cylstm.config' not in sys.modules; cylstm.get_include()"
    environment = os.environ | {"PYTHONPATH": packages}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=packages)
