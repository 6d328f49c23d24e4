"""Memory that training keeps: what one step leaves serves the next, and never while it is there."""

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cylstm
from cylstm.core.memory import Spare
from reference import assert_same_bits

SIZES = 1, 30, 200, 700, 3000  # steps; from 30 on the memory of their tapes is kept
H = 200


def gradients(lstm, tape, y):
    return lstm.backward(tape, np.ones_like(y))


def sequence(steps):
    return np.random.default_rng(steps).standard_normal((steps, 1, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def expected():
    """By the number of steps, of a network that never had another tape."""
    found = {}
    for steps in SIZES:
        lstm = cylstm.LSTM(2, H, seed=0)
        y, _, tape = lstm.forward(sequence(steps))
        found[steps] = gradients(lstm, tape, y)
    return found


@given(turns=st.lists(st.tuples(st.sampled_from(SIZES), st.booleans()), max_size=12))
def test_tapes_that_stay_are_not_written_to(expected, turns):
    lstm, kept = cylstm.LSTM(2, H, seed=0), []
    for steps, stays in turns:
        y, _, tape = lstm.forward(sequence(steps))
        if stays:
            kept.append((steps, y, tape))
    for steps, y, tape in kept:
        assert_same_bits(gradients(lstm, tape, y), expected[steps])


def test_a_traces_arrays_outlive_it():
    lstm = cylstm.LSTM(2, H, seed=0)
    gates = lstm.trace(sequence(700))["f_l0"]
    before = gates.copy()
    lstm.trace(sequence(700) + 1)
    assert_same_bits(gates, before)


def test_threads_that_train_at_once_have_tapes_of_their_own(expected):
    lstm, wrong = cylstm.LSTM(2, H, seed=0), []

    def train():
        for _ in range(20):
            y, _, tape = lstm.forward(sequence(200))
            for got, right in zip(
                gradients(lstm, tape, y)[2].values(), expected[200][2].values(), strict=True
            ):
                if got.tobytes() != right.tobytes():
                    wrong.append(1)

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def place(array):
    return array.__array_interface__["data"][0]


F32 = np.dtype("float32")


def test_memory_is_used_again_where_it_fits():
    spare = Spare()
    first = spare.empty(100_000, F32)
    assert first.shape == (100_000,)
    assert first.dtype == F32
    view, at = first[5:].reshape(-1, 5), place(first)
    del first
    other = spare.empty(100_000, F32)
    assert not np.shares_memory(other, view)
    del view
    assert place(spare.empty(50_000, F32)) == at
    assert place(spare.empty(50_000, np.dtype("float64"))) == at


def test_what_would_lie_idle_is_given_back():
    spare = Spare()
    tracemalloc.start()  # NumPy tells it of the memory of arrays
    try:
        large, small = spare.empty(1_000_000, F32), spare.empty(50_000, F32)
        del large, small
        assert 4_200_000 < tracemalloc.get_traced_memory()[0] < 4_300_000  # two, as there were
        small, smaller = spare.empty(50_000, F32), spare.empty(40_000, F32)
        both = small.nbytes + smaller.nbytes
        assert both < tracemalloc.get_traced_memory()[0] < both + 50_000
        del spare
        small[:] = smaller[0] = 1  # they have the memory that they had
        del small, smaller
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()


SMALL, LARGE = 1_000, 3_000_000


@given(
    turns=st.lists(
        st.tuples(st.sampled_from([SMALL, 40_000, 130_000, 500_000, LARGE]), st.integers(0, 4)),
        max_size=30,
    )
)
def test_arrays_have_memory_of_their_own_and_no_more_is_kept_than_there_was(turns):
    spare, there, numbers, most, largest = Spare(), [], 0, 0, 0
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for size, gone in turns:
            array = spare.empty((size // 10, 10), F32)
            numbers += 1
            array[...] = numbers
            there.append((array, numbers))
            most, largest = max(most, len(there)), max(largest, array.nbytes)
            del array
            del there[: min(gone, len(there))]
            assert all((array == number).all() for array, number in there)
            kept = tracemalloc.get_traced_memory()[0] - before
            assert kept <= most * largest + 100_000
    finally:
        tracemalloc.stop()


def test_outputs_and_gradients_that_stay_are_not_written_to():
    linear = cylstm.train.Linear(8, 400, seed=0)
    x = np.random.default_rng(0).standard_normal((2, 100, 8)).astype(np.float32)
    labels = np.zeros((2, 100), int)
    kept = []
    for factor in (1, 2, 3):
        y, _ = linear.forward(x * np.float32(factor))
        _, gradient = cylstm.train.cross_entropy_loss(y, labels)
        kept += [(array, array.copy()) for array in (y, gradient)]
    for array, before in kept:
        assert_same_bits(array, before)


def test_the_memory_of_outputs_and_gradients_serves_the_next():
    linear = cylstm.train.Linear(8, 400, seed=0)
    x, labels = np.ones((2, 100, 8), np.float32), np.zeros((2, 100), int)

    def places():
        y, _ = linear.forward(x)
        _, gradient = cylstm.train.cross_entropy_loss(y, labels)
        return place(y), place(gradient)

    assert places() == places()


def test_threads_that_share_it_have_arrays_of_their_own():
    spare, wrong = Spare(), []

    def work(number):
        rng, there = np.random.default_rng(number), []
        for turn in range(400):
            array = spare.empty(int(rng.choice([10_000, 20_000, 50_000])), F32)
            array[...] = 1000 * number + turn
            there.append((array, 1000 * number + turn))
            if len(there) > 3 or rng.random() < 0.5:
                array, value = there.pop(rng.integers(len(there)))
                if not (array == value).all():
                    wrong.append(value)
            del array

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
