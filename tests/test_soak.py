"""The command that runs long and does harm, here for a moment: that it sees what fails."""

import sys
from pathlib import Path

import numpy as np
import pytest

import cylstm  # before the root, where it need not be built, is on the path

ROOT = Path(__file__).parents[1]
pytest.importorskip("resource")  # POSIX's limits


@pytest.fixture(scope="module")
def soak():
    sys.path.insert(0, str(ROOT))
    try:
        from tools.soak import __main__, common, faults, steady

        yield {"main": __main__, "common": common, "faults": faults, "steady": steady}
    finally:
        sys.path.remove(str(ROOT))


@pytest.mark.parametrize("name", ["steps", "shapes", "loads", "streams"])
def test_long_runs_for_a_moment(soak, name):
    assert soak["main"].CHECKS[name].run(1e-5)


def test_every_entry_gives_the_same_twice(soak):
    same, doors = soak["common"].same, soak["faults"].entries()
    for name, door in doors.items():
        assert same(door(), door()), name


def test_other_bits_are_seen(soak, monkeypatch, capsys):
    """A model whose calls differ fails the check, and so the command."""
    calls = iter(range(10**6))
    real = cylstm.LSTM.__call__

    def drifting(lstm, *given, **named):
        y, state = real(lstm, *given, **named)
        return y + np.float32(next(calls) * 1e-3), state

    monkeypatch.setattr(cylstm.LSTM, "__call__", drifting)
    assert soak["main"].run("steps", 0.002) == soak["main"].FAILED
    assert "is not that of the call" in capsys.readouterr().out


def test_memory_that_grows_is_seen(soak):
    flat, kept = soak["common"].Flat(10, allowed=1_000_000), []
    for done in range(1, 10):
        kept.append(np.ones(5_000_000))  # too large for memory that was freed before
        flat.after(done)
    with pytest.raises(soak["common"].Failed, match="memory grew by"):
        flat.after(10)


def test_results_are_compared_bit_by_bit(soak):
    same = soak["common"].same
    assert same([{"a": np.ones(2)}, (1, None)], [{"a": np.ones(2)}, (1, None)])
    assert not same({"a": np.zeros(2)}, {"a": -np.zeros(2)})
    assert not same(np.ones(2), np.ones(2, np.float32))
    assert not same([np.ones(2)], [np.ones(2), np.ones(2)])
