"""Sequences of their own lengths in one padded batch."""

import numpy as np
import pytest

from cylstm.core.kernels import PRODUCT
from reference import assert_close, assert_gradients_close, assert_same_bits, flat, random_case

STEPS = 5
LENGTHS = np.array([3, 0, 5, 1])

# Our own products give a row its bits in a batch of any size; BLAS computes it by another kernel.
assert_same_rows = assert_close if PRODUCT == "blas" else assert_same_bits


@pytest.fixture
def case(rng, options):
    # Time-major, so that [length:, n] is the padding of sequence n.
    return random_case(rng, STEPS, len(LENGTHS), LENGTHS, **options | {"batch_first": False})


@pytest.fixture
def padding():
    """Of (step, sequence): past the sequence's end."""
    return np.arange(STEPS)[:, np.newaxis] >= LENGTHS


def alone(case, n):
    """The case of sequence n without its padding."""
    own, valid = np.s_[:, n : n + 1], np.s_[: LENGTHS[n], n : n + 1]
    return type(case)(
        lstm=case.lstm,
        config=case.config,
        x=case.x[valid],
        state=tuple(s[own] for s in case.state),
        lengths=None,
        grad_y=case.grad_y[valid],
        grad_state=tuple(g[own] for g in case.grad_state),
    )


def test_each_sequence_as_if_alone(case):
    y, state = case.lstm(*case.inputs)
    for n, length in enumerate(LENGTHS):
        own = np.s_[:, n : n + 1]
        single = alone(case, n)
        assert_same_rows(
            [y[:length, n : n + 1], *(s[own] for s in state)], case.lstm(*single.inputs)
        )


def test_gradients_as_if_alone(case):
    gradients = case.gradients()
    singles = [alone(case, n).gradients() for n in range(len(LENGTHS))]
    expected = {"x": np.zeros_like(case.x)}
    for n, single in enumerate(singles):
        expected["x"][: LENGTHS[n], n : n + 1] = single["x"]
    for name in ("h_0", "c_0"):
        expected[name] = np.concatenate([single[name] for single in singles], axis=1)
    for name, _ in case.lstm.named_parameters():
        expected[name] = sum(single[name] for single in singles)
    assert_gradients_close(gradients, expected, 1e-12)


def test_y_is_zero_past_the_end(case, padding):
    out = np.full_like(case.grad_y, np.nan)
    case.lstm(*case.inputs, out=out)
    for y in out, case.lstm(*case.inputs)[0], case.lstm.forward(*case.inputs)[0]:
        assert not y[padding].any()
        assert y[~padding].any()


def test_padding_is_not_read(case, padding):
    expected = case.lstm(*case.inputs), case.gradients()
    case.x[padding] = np.nan
    case.grad_y[padding] = np.nan
    assert_same_bits((case.lstm(*case.inputs), case.gradients()), expected)


def test_no_gradient_in_the_padding(case, padding):
    assert not case.gradients()["x"][padding].any()


def test_zero_length_returns_its_initial_state(case):
    (empty,) = np.flatnonzero(LENGTHS == 0)
    _, state = case.lstm(*case.inputs)
    gradients = case.gradients()
    grad_state = gradients["h_0"], gradients["c_0"]
    assert_same_bits([s[:, empty] for s in state], [s[:, empty] for s in case.state])
    assert_same_bits([g[:, empty] for g in grad_state], [g[:, empty] for g in case.grad_state])


def test_all_of_length_zero(case):
    case.lengths = np.zeros_like(LENGTHS)
    y, state = case.lstm(*case.inputs)
    gradients = case.gradients()
    assert_same_bits((y, state), (np.zeros_like(y), case.state))
    assert_same_bits((gradients.pop("h_0"), gradients.pop("c_0")), case.grad_state)
    assert not any(gradient.any() for gradient in gradients.values())


def test_full_lengths_are_no_lengths(case):
    case.lengths = np.full_like(LENGTHS, STEPS)
    with_lengths = case.lstm(*case.inputs), case.gradients()
    case.lengths = None
    assert_same_bits((case.lstm(*case.inputs), case.gradients()), with_lengths)


@pytest.mark.parametrize(
    "lengths",
    [
        LENGTHS.tolist(),
        tuple(LENGTHS.tolist()),
        LENGTHS.astype("u1"),
        LENGTHS.astype(">i4"),
        np.repeat(LENGTHS, 2)[::2],
    ],
    ids=["list", "tuple", "bytes", "big-endian", "strided"],
)
def test_integers_of_any_kind(rng, lengths):
    case = random_case(rng, STEPS, len(LENGTHS))
    assert_same_bits(case.lstm(case.x, lengths=lengths), case.lstm(case.x, lengths=LENGTHS))


@pytest.mark.parametrize("lengths", [3, np.int64(3), np.array(3), [3], np.array([3])], ids=repr)
def test_unbatched(rng, options, lengths):
    case = random_case(rng, STEPS, None, **options)
    expected_y, expected_state = case.lstm(case.x[:3], case.state)
    y, state = case.lstm(case.x, case.state, lengths)
    assert_same_bits((y[:3], state), (expected_y, expected_state))
    assert not y[3:].any()


def test_lengths_may_change_after_forward(rng):
    case = random_case(rng, STEPS, len(LENGTHS), LENGTHS.copy())
    expected = case.gradients()
    _, _, tape = case.lstm.forward(*case.inputs)
    case.lengths[...] = STEPS
    assert_same_bits(flat(case.lstm.backward(tape, case.grad_y, case.grad_state)), expected)
