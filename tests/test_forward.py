"""Both forward passes, inference and training, against the reference."""

import numpy as np
import pytest
from hypothesis import given

import cylstm
from reference import assert_close, assert_same_bits, leaves, random_case, random_lstm
from strategies import LAYOUTS, OUT_LAYOUTS, cases


def check(case):
    expected = case.expected()
    y, state, _ = case.lstm.forward(*case.inputs)
    for actual in case.lstm(*case.inputs), (y, state):
        assert {leaf.dtype for leaf in leaves(actual)} == {np.dtype(case.config["dtype"])}
        assert_close(actual, expected)


@given(cases())
def test_any_shape_and_options(case):
    check(case)


@pytest.mark.parametrize("lengths", [None, [2, 0, 4]], ids=["full", "ragged"])
@pytest.mark.parametrize("hidden_size", [4, 33])
def test_each_option(rng, options, dtype, hidden_size, lengths):
    check(random_case(rng, 4, 3, lengths, hidden_size=hidden_size, dtype=dtype, **options))


def test_float32_is_accurate_after_a_hundred_steps(rng):
    config = {"input_size": 32, "hidden_size": 64, "seed": 0}
    case = random_case(rng, 100, 2, dtype="float32", **config)
    case.lstm = cylstm.LSTM(**config)
    assert_close(case.lstm(*case.inputs), case.expected(), 2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_of_the_input(rng, dtype, layout):
    case = random_case(rng, 5, 3, num_layers=2, dtype=dtype)
    x, state = layout(case.x), tuple(map(layout, case.state))
    assert_same_bits(case.lstm(x, state), case.lstm(*case.inputs))
    assert_same_bits(case.lstm.forward(x, state)[:2], case.lstm.forward(*case.inputs)[:2])


def test_arrays_of_other_libraries(rng):
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    case = random_case(rng, 5, 3)
    foreign = case.lstm(Foreign(case.x), tuple(map(Foreign, case.state)))
    assert_same_bits(foreign, case.lstm(*case.inputs))


def test_batch_first_only_moves_axes(rng):
    case = random_case(rng, 5, 3, bidirectional=True)
    batch_first = cylstm.LSTM(**case.config, batch_first=True)
    batch_first.load_state_dict(case.lstm.state_dict())
    y, state = batch_first(case.x.swapaxes(0, 1), case.state)
    assert_same_bits((y.swapaxes(0, 1), state), case.lstm(*case.inputs))


@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched_is_a_batch_of_one(rng, batch_first):
    case = random_case(rng, 5, None, bidirectional=True, batch_first=batch_first)
    axis = 0 if batch_first else 1
    state = tuple(np.expand_dims(s, 1) for s in case.state)
    y, (h, c) = case.lstm(np.expand_dims(case.x, axis), state)
    assert_same_bits(case.lstm(*case.inputs), (y.squeeze(axis), (h.squeeze(1), c.squeeze(1))))


def test_no_state_is_a_state_of_zeros(rng, options):
    case = random_case(rng, 4, 3, **options)
    zeros = tuple(map(np.zeros_like, case.state))
    assert_same_bits(case.lstm(case.x), case.lstm(case.x, zeros))


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0), (0, None)])
def test_nothing_to_read(rng, options, steps, batch):
    case = random_case(rng, steps, batch, **options)
    y, state, _ = case.lstm.forward(*case.inputs)
    for actual in case.lstm(*case.inputs), (y, state):
        assert_same_bits(actual, (np.empty_like(case.grad_y), case.state))


@pytest.mark.parametrize("steps", [0, 3])
def test_inputs_are_neither_changed_nor_handed_back(rng, options, steps):
    case = random_case(rng, steps, 2, **options)
    inputs = case.x, case.state
    copies = case.x.copy(), tuple(map(np.copy, case.state))
    y, state, _ = case.lstm.forward(*inputs)
    for outputs in case.lstm(*inputs), (y, state):
        for output in leaves(outputs):
            assert output.flags.writeable
            assert not any(np.shares_memory(output, leaf) for leaf in leaves(inputs))
            output[...] = np.nan
    assert_same_bits(inputs, copies)


@pytest.mark.parametrize(
    ("batch", "lengths"), [(3, [4, 0, 5]), (None, 4)], ids=["batch", "unbatched"]
)
@pytest.mark.parametrize("layout", [np.array, *OUT_LAYOUTS])
def test_out_is_filled_and_returned(rng, options, dtype, layout, batch, lengths):
    case = random_case(rng, 5, batch, lengths, dtype=dtype, **options)
    out = layout(np.full_like(case.grad_y, np.nan))
    y, state = case.lstm(*case.inputs, out=out)
    assert y is out
    assert_same_bits((y, state), case.lstm(*case.inputs))


OVERLAPS = {
    "the same": lambda a: (a[1:-1], a[1:-1]),
    "one step later": lambda a: (a[:-2], a[1:-1]),
    "one step earlier": lambda a: (a[1:-1], a[:-2]),
    "backwards": lambda a: (a[1:-1], a[-2:0:-1]),
}


@pytest.mark.parametrize("overlap", OVERLAPS.values(), ids=OVERLAPS.keys())
@pytest.mark.parametrize(
    "options",
    [{}, {"reverse": True}, {"num_layers": 2}, {"bidirectional": True, "input_size": 8}],
    ids=str,
)
def test_out_may_overlap_x(rng, options, overlap):
    case = random_case(rng, 7, 3, **{"input_size": 4} | options)
    x, out = overlap(case.x)
    expected = case.lstm(x.copy(), case.state)
    assert_same_bits(case.lstm(x, case.state, out=out), expected)


def test_out_may_overlap_the_state(rng):
    case = random_case(rng, 5, 3)
    expected = case.lstm(*case.inputs)
    out = np.empty_like(case.grad_y)
    for part, values in zip((out[:1], out[2:3]), case.state, strict=True):
        part[...] = values
    assert_same_bits(case.lstm(case.x, (out[:1], out[2:3]), out=out), expected)


def test_saturated_gates(rng, dtype):
    case = random_case(rng, 4, 3, num_layers=2, dtype=dtype)
    case.x *= 1e30
    check(case)


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_infinite_input(rng, dtype, infinity):
    case = random_case(rng, 4, 3, input_size=1, dtype=dtype)
    case.x[1] = infinity
    check(case)


@pytest.mark.parametrize("values", ["x", "h_0", "c_0"])
def test_nan_stays_in_its_sequence(rng, options, values):
    case = random_case(rng, 4, 3, **options | {"batch_first": False})
    expected = case.lstm(*case.inputs)
    {"x": case.x, "h_0": case.state[0], "c_0": case.state[1]}[values][:, 1] = np.nan
    actual = case.lstm(*case.inputs)
    assert np.isnan(actual[0][:, 1]).any()
    for a, e in zip(leaves(actual), leaves(expected), strict=True):
        assert_close(a[:, [0, 2]], e[:, [0, 2]])


def test_one_lstm_serves_any_shape_in_any_order(rng):
    lstm = random_lstm(rng, input_size=3, hidden_size=4, num_layers=2, dtype="float64")
    inputs = [
        rng.standard_normal((steps, batch, 3)) for steps, batch in [(5, 2), (1, 9), (40, 1), (5, 2)]
    ]
    first = [lstm(x) for x in inputs]
    again = [lstm(x) for x in reversed(inputs)]
    assert_same_bits(again[::-1], first)
