"""The examples, run as a user runs them, in their short mode."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cylstm.train import Sequential

EXAMPLES = Path(__file__).parents[1] / "examples"

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


def run(example, *arguments, folder):
    """Run an example in a folder of its own; return what it did."""
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_sunspots_are_forecast(tmp_path):
    done = run("forecast_sunspots.py", "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") == 3
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")
    assert len(Sequential.load(tmp_path / "sunspots.safetensors")) == 2


def test_the_naive_errors_are_those_of_the_data(tmp_path):
    done = run("forecast_sunspots.py", "--quick", "--out", "new/folder", folder=tmp_path)
    sunspots = np.loadtxt(EXAMPLES / "data/sunspots.csv", delimiter=",", skiprows=1, usecols=1)
    assert len(sunspots) == 2820
    expected = {"persistence": (1, 12), "eleven years ago": (132, 132)}
    for name, lags in expected.items():
        errors = [np.sqrt(np.mean((sunspots[lag:] - sunspots[:-lag])[-564:] ** 2)) for lag in lags]
        row = next(line for line in done.stdout.splitlines() if line.startswith(name))
        assert row.removeprefix(name).split() == [f"{error:.2f}" for error in errors]
    assert (tmp_path / "new/folder/forecast.png").exists()


def test_a_claim_that_fails_is_an_error(tmp_path):
    done = run("forecast_sunspots.py", "--seeds", "1", "--epochs", "1", folder=tmp_path)
    assert done.returncode == 1
    assert "FAILED every LSTM beats" in done.stdout


@pytest.mark.parametrize("option", ["--seeds", "--epochs"])
def test_nothing_to_do_is_refused(tmp_path, option):
    done = run("forecast_sunspots.py", option, "0", folder=tmp_path)
    assert done.returncode == 2
    assert "must be at least 1" in done.stderr
