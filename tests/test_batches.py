"""Batches: every example once an epoch, in an order that is the random generator's alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cylstm.train import Arrays, Buckets, Streams, windows
from cylstm.train.losses import IGNORED


def epoch(source, seed=0):
    return list(source.epoch(np.random.default_rng(seed)))


def assert_order_is_the_generators(source):
    first, again, other = epoch(source, 1), epoch(source, 1), epoch(source, 2)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.x, same.x)
    assert any(
        one.x.shape != two.x.shape or (one.x != two.x).any()
        for one, two in zip(first, other, strict=True)
    )


# Arrays -------------------------------------------------------------------------------------------


@given(count=st.integers(1, 20), size=st.integers(1, 25), seed=st.integers(0, 99))
def test_arrays_give_each_example_once_with_its_target(count, size, seed):
    x = np.arange(3.0 * count).reshape(3, count)
    batches = epoch(Arrays(x, x[0], size, lengths=np.arange(count) % 4, axes=(1, 0)), seed)
    assert [len(batch.target) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    targets = np.concatenate([batch.target for batch in batches])
    np.testing.assert_array_equal(np.sort(targets), x[0])
    np.testing.assert_array_equal(np.concatenate([b.x for b in batches], axis=1)[0], targets)
    lengths = np.concatenate([batch.lengths for batch in batches])
    np.testing.assert_array_equal(lengths, targets % 4)


def test_the_order_of_arrays():
    source = Arrays(np.arange(50.0), np.arange(50.0), 8, axes=(0, 0))
    assert_order_is_the_generators(source)
    still = Arrays(np.arange(50.0), np.arange(50.0), 8, axes=(0, 0), shuffle=False)
    np.testing.assert_array_equal(np.concatenate([b.x for b in epoch(still)]), np.arange(50))
    assert len(source) == len(epoch(source)) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.ones((2, 4))), "target: expected as many examples as x"),
        ((np.ones(3), np.ones(3)), r"x: expected examples along axis 1, got \(3,\)"),
        ((np.ones((2, 0)), np.ones((2, 0))), "at least one: 0, got 0"),
        ((np.ones((2, 3)), np.ones((2, 3)), 0), "batch_size: expected an integer from 1"),
    ],
)
def test_bad_arrays(arguments, message):
    with pytest.raises(ValueError, match=message):
        Arrays(*arguments)
    with pytest.raises(ValueError, match="lengths: expected 0 to 2"):
        Arrays(np.ones((2, 3)), np.ones((2, 3)), lengths=[1, 2, 3])


# Windows ------------------------------------------------------------------------------------------


@given(
    length=st.integers(2, 40), steps=st.integers(1, 20), ahead=st.integers(1, 5),
    stride=st.integers(1, 4),
)  # fmt: skip
def test_windows_are_the_series_and_what_follows(length, steps, ahead, stride):
    series = np.arange(float(length))
    if length < steps + ahead:
        with pytest.raises(ValueError, match=r"series: expected at least steps \+ ahead"):
            windows(series, steps, ahead)
        return
    x, last = windows(series, steps, ahead, stride=stride)
    again, every = windows(series, steps, ahead, stride=stride, every_step=True)
    starts = range(0, length - steps - ahead + 1, stride)
    assert x.shape == again.shape == (steps, len(starts), 1)
    assert every.shape == (steps, len(starts), ahead)
    for n, start in enumerate(starts):
        np.testing.assert_array_equal(x[:, n, 0], series[start : start + steps])
        np.testing.assert_array_equal(last[n], start + steps + np.arange(ahead))
        for t in range(steps):
            np.testing.assert_array_equal(every[t, n], start + t + 1 + np.arange(ahead))
    assert np.shares_memory(x, series)


def test_windows_of_several_series():
    series, wanted = np.arange(20.0).reshape(10, 2), 100 + np.arange(10.0)
    x, target = windows(series, 3, 2, target=wanted)
    assert x.shape == (3, 6, 2)
    np.testing.assert_array_equal(x[:, 4], series[4:7])
    np.testing.assert_array_equal(target[4], wanted[7:9])


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        ((np.ones((2, 3, 4)), 1), {}, r"series: expected shape \(S,\) or \(S, F\)"),
        ((np.ones((9, 2)), 1), {}, r"target: expected what to forecast of a series \(S, F\)"),
        ((np.ones(9), 1), {"target": np.ones(8)}, r"target: expected shape \(9,\), got \(8,\)"),
        ((np.ones(9), 0), {}, "steps: expected an integer from 1"),
        ((np.ones(9), 1, 0), {}, "ahead: expected an integer from 1"),
        ((np.ones(9), 1), {"stride": 0}, "stride: expected an integer from 1"),
    ],
)
def test_bad_windows(arguments, more, message):
    with pytest.raises(ValueError, match=message):
        windows(*arguments, **more)


# Buckets ------------------------------------------------------------------------------------------


lengths = st.lists(st.integers(0, 12), min_size=1, max_size=20)


@given(lengths, st.integers(1, 6), st.booleans(), st.sampled_from(["f4", "i8"]))
def test_buckets_hold_each_sequence_once_padded(lengths, size, batch_first, dtype):
    sequences = [np.full((length, 2), n + 1.0) for n, length in enumerate(lengths)]
    targets = [np.full(length, n + 1, dtype) for n, length in enumerate(lengths)]
    source = Buckets(sequences, targets, size, every_step=True, batch_first=batch_first)
    batches, seen = epoch(source), []
    assert len(batches) == len(source)
    for batch in batches:
        x, target = (a if batch_first else a.swapaxes(0, 1) for a in batch[:2])
        assert target.shape == x.shape[:2] == (len(batch.lengths), max(1, *batch.lengths, 0))
        assert target.dtype == dtype
        for one, wanted, length in zip(x, target, batch.lengths, strict=True):
            seen.append((length, *one[:length].ravel(), *wanted[:length]))
            assert not one[length:].any()
            assert (wanted[length:] == (IGNORED if dtype == "i8" else 0)).all()
    expected = [(len(x), *x.ravel(), *target) for x, target in zip(sequences, targets, strict=True)]
    assert sorted(seen) == sorted(expected)


def test_buckets_have_like_lengths_and_one_target_each():
    rng = np.random.default_rng(0)
    sequences = [np.zeros((length, 1)) for length in rng.integers(1, 1000, 64)]
    source = Buckets(sequences, np.array([len(x) for x in sequences]), 8)
    batches = epoch(source)
    for batch in batches:
        np.testing.assert_array_equal(batch.target, batch.lengths)
    padded = sum(batch.x.size for batch in batches)
    assert padded < 1.15 * sum(map(len, sequences))
    assert_order_is_the_generators(Buckets(sequences, np.arange(64), 8))


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([np.ones((3, 2)), np.ones((2, 1))], ValueError, r"\[1\]: expected shape \(T, 2\), got"),
        ([np.ones(3), np.ones((2, 1))], ValueError, r"\[1\]: expected shape \(T,\), got \(2, 1\)"),
        ([np.ones(3), np.ones(2, "f4")], TypeError, r"\[1\]: expected dtype float64, got float32"),
        ([np.ones(3, int), np.ones(2)], TypeError, r"\[1\]: expected dtype int64, got float64"),
        ([np.ones(3), np.ones(())], ValueError, r"\[1\]: expected at least one axis"),
        (5, TypeError, ": expected a sequence of arrays, got int"),
    ],
)
def test_sequences_that_cannot_lie_side_by_side(sequences, error, message):
    """Widths of one would be broadcast, and precisions rounded, without a word."""
    with pytest.raises(error, match=f"sequences{message}"):
        Buckets(sequences, np.ones(2))
    with pytest.raises(error, match=f"targets{message}"):
        Buckets([np.ones(3), np.ones(2)], sequences, every_step=True)


def test_arrays_without_an_axis():
    with pytest.raises(ValueError, match=r"x: expected at least one axis, got shape \(\)"):
        Streams(np.array(1.0), np.ones(1))
    with pytest.raises(ValueError, match="target: expected at least one axis"):
        Streams(np.ones(1), np.array(1.0))
    with pytest.raises(ValueError, match="targets: expected at least one axis"):
        Buckets([np.ones(1)], np.array(1.0))
    with pytest.raises(ValueError, match=r"x: expected sequences beside lengths, got \(2,\)"):
        Arrays(np.ones(2), np.ones(2), lengths=[1, 1], axes=(0, 0))


def test_bad_buckets():
    with pytest.raises(ValueError, match="targets: expected as many as sequences, at least one"):
        Buckets([], np.ones(0))
    with pytest.raises(ValueError, match="at least one: 1, got 2"):
        Buckets([np.ones(3)], np.ones(2))
    with pytest.raises(ValueError, match=r"targets\[1\]: expected 2 steps, got 3"):
        Buckets([np.ones(3), np.ones(2)], [np.ones(3), np.ones(3)], every_step=True)
    with pytest.raises(TypeError, match=r"sequences\[0\]: expected an array, got list"):
        Buckets([[1.0]], np.ones(1))


# Streams ------------------------------------------------------------------------------------------


@given(
    length=st.integers(1, 60), size=st.integers(1, 8), steps=st.integers(1, 12),
    batch_first=st.booleans(),
)  # fmt: skip
def test_streams_are_parts_that_go_on(length, size, steps, batch_first):
    text = np.arange(length + 1)
    if length < size:
        with pytest.raises(ValueError, match="target: expected as many steps as x, at least"):
            Streams(text[:-1], text[1:], size)
        return
    source = Streams(text[:-1], text[1:], size, steps=steps, batch_first=batch_first)
    batches = epoch(source)
    assert len(batches) == len(source)
    assert [batch.follows for batch in batches] == [False] + [True] * (len(batches) - 1)
    for batch in batches:
        np.testing.assert_array_equal(batch.target, batch.x + 1)
    axis = 1 if batch_first else 0
    whole = np.concatenate([batch.x for batch in batches], axis=axis)
    whole = whole if batch_first else whole.T
    np.testing.assert_array_equal(whole.ravel(), np.arange(size * (length // size)))


def test_streams_of_features():
    x = np.arange(24.0).reshape(12, 2)
    batches = epoch(Streams(x, x, 3, steps=3))
    assert [batch.x.shape for batch in batches] == [(3, 3, 2), (1, 3, 2)]
    np.testing.assert_array_equal(batches[1].x[0], x[[3, 7, 11]])
