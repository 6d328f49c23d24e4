"""Resets: several sequences in one row, each as if it had been called alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.core.kernels import PRODUCT
from reference import (
    assert_close,
    assert_gradients_close,
    assert_same_bits,
    leaves,
    random_case,
)
from strategies import family, seeds, shapes
from threads import threads_as_before

bits = pytest.mark.skipif(PRODUCT == "blas", reason="BLAS promises no such thing")
kinds = pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
DIRECTIONS = [{"num_layers": 2}, {"reverse": True}, {"bidirectional": True}]
widths = st.integers(1, 40) | st.sampled_from([64, 160])
shares = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@pytest.fixture(autouse=True)
def _threads_as_before():
    with threads_as_before():
        yield


def run(case, **more):
    return case.lstm(*case.inputs, **case.more, **more)


@settings(max_examples=100)
@given(member=family(), shape=shapes(), seed=seeds, share=shares)
def test_any_options_and_shape(member, shape, seed, share):
    kind, config = member
    case = random_case(np.random.default_rng(seed), *shape, kind, resets=share, **config)
    assert_close(run(case), case.expected())
    y, state, _ = case.lstm.forward(*case.inputs, **case.more)
    assert_close((y, state), case.expected())


@kinds
@pytest.mark.parametrize("config", DIRECTIONS)
@pytest.mark.parametrize("lengths", [None, [5, 0, 3, 4]])
def test_gradients_are_those_of_differences(rng, kind, config, lengths):
    case = random_case(rng, 5, 4, lengths, kind, resets=0.4, **{"hidden_size": 3} | config)
    assert_gradients_close(case.gradients(), case.numeric_gradients())


@pytest.mark.parametrize("config", [{"peephole": True}, {"proj_size": 2}, {"coupled": True}])
def test_gradients_with_options(rng, config):
    case = random_case(rng, 5, 4, [5, 2, 4, 3], resets=0.4, **config)
    assert_gradients_close(case.gradients(), case.numeric_gradients())


@settings(max_examples=40)
@given(member=family(), shape=shapes(), seed=seeds, segment=st.integers(1, 5))
def test_segments_change_no_gradient(member, shape, seed, segment):
    kind, config = member
    case = random_case(np.random.default_rng(seed), *shape, kind, resets=0.3, **config)
    assert_gradients_close(case.gradients(segment=segment), case.gradients(), 1e-12)


@st.composite
def packed_rows(draw):
    kind, config = draw(family(widths))
    config |= {"dtype": draw(st.sampled_from(["float32", "float64"])), "batch_first": False}
    config["num_layers"] = 1
    steps, batch = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(seeds))
    lengths = rng.integers(0, steps + 1, batch)
    return random_case(rng, steps, batch, lengths, kind, resets=draw(shares), **config)


def sequences(case, n):
    """The bounds of those that are in a row, some perhaps empty."""
    begins = np.flatnonzero(case.resets[: case.lengths[n], n])
    return list(zip([0, *begins], [*begins, case.lengths[n]], strict=True))


def state_before(case, n, is_first, is_last):
    """Of a row's sequence alone: what the row was given, where it is the first that is read."""
    parts = [part[:, n : n + 1].copy() for part in leaves(case.state)]
    for direction in range(case.lstm._options.directions):
        if not (is_last if case.lstm._options.reads_from_end(direction) else is_first):
            for part in parts:
                part[direction] = 0
    return tuple(parts) if case.kind == "LSTM" else parts[0]


@bits
@settings(max_examples=60)
@given(case=packed_rows())
def test_the_bits_of_separate_calls(case):
    y, state = run(case)
    for n in range(case.x.shape[1]):
        parts = sequences(case, n)
        for number, (first, last) in enumerate(parts):
            is_first, is_last = number == 0, number == len(parts) - 1
            before = state_before(case, n, is_first, is_last)
            x = np.ascontiguousarray(case.x[first:last, n : n + 1])
            alone, after = case.lstm(x, before)
            assert_same_bits(alone, y[first:last, n : n + 1])
            if first == last and len(parts) > 1:
                continue  # a reset at the first step: the sequence before it has none
            for direction in range(case.lstm._options.directions):
                if is_last and not case.lstm._options.reads_from_end(direction):
                    ends = True
                else:
                    ends = first == 0 and case.lstm._options.reads_from_end(direction)
                for part, whole in zip(leaves(after), leaves(state), strict=True):
                    assert not ends or (part[direction, 0] == whole[direction, n]).all()


@bits
@settings(max_examples=60)
@given(case=packed_rows(), threads=st.integers(2, 7))
def test_any_number_of_threads(case, threads):
    cylstm.set_num_threads(1)
    expected = run(case), case.gradients()
    cylstm.set_num_threads(threads)
    assert_same_bits((run(case), case.gradients()), expected)


@bits
@kinds
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 7])
def test_streams_and_parts(rng, kind, threads, batch):
    cylstm.set_num_threads(threads)
    config = {"input_size": 20, "hidden_size": 200, "num_layers": 2, "dtype": "float32"}
    case = random_case(rng, 40, batch, None, kind, resets=0.2, **config)
    y, after = run(case)
    first, state = case.lstm(case.x[:13], case.state, resets=case.resets[:13])
    second, state = case.lstm(case.x[13:], state, resets=case.resets[13:])
    assert_same_bits((np.concatenate([first, second]), state), (y, after))
    stream = case.lstm.stream(batch)
    stream.state = case.state
    steps = [stream.step(x, resets=r) for x, r in zip(case.x[:20], case.resets, strict=False)]
    rest = stream.step(case.x[20:], resets=case.resets[20:])
    assert_same_bits((np.concatenate([np.stack(steps), rest]), stream.state), (y, after))


@kinds
def test_no_gradient_goes_over(rng, kind):
    case = random_case(rng, 6, 5, None, kind, num_layers=2)
    resets = np.zeros((6, 5), bool)
    resets[3] = True
    _, _, tape = case.lstm.forward(case.x, case.state, resets=resets)
    grad_y = np.zeros_like(case.grad_y)
    grad_y[3:] = 1
    grad_x, grad_state, _ = case.lstm.backward(tape, grad_y, case.grad_state)
    assert not grad_x[:3].any()
    assert grad_x[3:].any()
    assert not any(part.any() for part in leaves(grad_state))


def test_what_is_past_the_end_is_not_read(rng):
    config = {"bidirectional": True, "dtype": "float32"}
    case = random_case(rng, 6, 3, np.array([6, 2, 4]), resets=0.3, **config)
    expected = run(case), case.gradients()
    for n, length in enumerate(case.lengths):
        case.resets[length:, n] = True
    assert_same_bits((run(case), case.gradients()), expected)


def test_none_is_as_no_resets(rng):
    case = random_case(rng, 6, 3, dtype="float32")
    assert_same_bits(case.lstm(case.x, resets=np.zeros((6, 3), bool)), case.lstm(case.x))
    assert_same_bits(case.lstm(case.x, resets=[[False] * 3] * 6), case.lstm(case.x))


def test_a_single_sequence(rng):
    case = random_case(rng, 6, None, dtype="float32")
    resets = np.arange(6) == 2
    y, _ = case.lstm(case.x, resets=resets)
    assert_same_bits(y[2:], case.lstm(case.x[2:])[0])
    stream = case.lstm.stream()
    steps = [stream.step(x, resets=bool(r)) for x, r in zip(case.x, resets, strict=True)]
    assert_same_bits(np.stack(steps), y)


@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (np.zeros((6, 3), int), TypeError, "resets: expected an array of bool, got int64"),
        (np.zeros((3, 6), bool), ValueError, r"resets: expected shape \(6, 3\), got \(3, 6\)"),
        (np.zeros(6, bool), ValueError, r"resets: expected shape \(6, 3\)"),
        (3, TypeError, "resets: expected an array"),
    ],
)
def test_bad_resets(resets, error, message):
    lstm, x = cylstm.LSTM(2, 3), np.zeros((6, 3, 2), np.float32)
    for call in (lstm, lstm.forward):
        with pytest.raises(error, match=message):
            call(x, resets=resets)
    stream = lstm.stream(3)
    with pytest.raises(error, match="resets: expected"):
        stream.step(x, resets=resets)
    assert not stream.state[0].any()
