"""stream.step, one or more steps at a time, against the whole sequence in one call."""

import numpy as np
import pytest

import cylstm
from reference import assert_close, assert_same_bits, leaves, random_case, random_lstm
from strategies import LAYOUTS, STREAMABLE

STEPS, BATCH = 7, 3


@pytest.fixture(params=STREAMABLE.values(), ids=STREAMABLE.keys())
def options(request):
    return request.param


@pytest.fixture
def case(rng, options):
    return random_case(rng, STEPS, BATCH, **options | {"batch_first": False})


def steps_of(stream, x):
    return np.stack([stream.step(x_t) for x_t in x])


def test_a_new_stream_starts_from_zeros(case):
    stream = case.lstm.stream(BATCH)
    assert_same_bits(stream.state, tuple(map(np.zeros_like, case.state)))
    assert_same_bits((steps_of(stream, case.x), stream.state), case.lstm(case.x))


def test_step_by_step(rng, options, dtype):
    case = random_case(rng, STEPS, BATCH, **options | {"batch_first": False, "dtype": dtype})
    stream = case.lstm.stream(BATCH)
    stream.state = case.state
    y = steps_of(stream, case.x)
    assert y.dtype == dtype
    assert_same_bits((y, stream.state), case.lstm(case.x, case.state))
    assert_close((y, stream.state), case.expected())


@pytest.mark.parametrize("cuts", [[], [1], [3], [2, 2], [1, 2, 6]], ids=str)
def test_in_chunks(case, cuts):
    stream = case.lstm.stream(BATCH)
    stream.state = case.state
    y = np.concatenate([stream.step(chunk) for chunk in np.split(case.x, cuts)])
    assert_same_bits((y, stream.state), case.lstm(case.x, case.state))


def test_batch_first(rng):
    case = random_case(rng, STEPS, BATCH, num_layers=2, batch_first=True)
    stream = case.lstm.stream(BATCH)
    y = [
        stream.step(case.x[:, :3]),
        stream.step(case.x[:, 3])[:, np.newaxis],
        stream.step(case.x[:, 4:]),
    ]
    assert_same_bits((np.concatenate(y, axis=1), stream.state), case.lstm(case.x))


def test_one_sequence_needs_no_batch_axis(case):
    x = case.x[:, 0]
    stream, twin = case.lstm.stream(), case.lstm.stream(batch_size=1)
    for x_t in x:
        y_t = stream.step(x_t)
        assert_same_bits(y_t[np.newaxis], twin.step(x_t[np.newaxis]))
    assert_same_bits(stream.state, twin.state)


@pytest.mark.parametrize("shape", [(0, BATCH, 3), (STEPS, 0, 3)])
def test_nothing_to_read(case, shape):
    stream = case.lstm.stream(shape[1])
    before = stream.state
    y = stream.step(np.empty(shape))
    assert y.shape == (*shape[:2], case.grad_y.shape[2])
    assert_same_bits(stream.state, before)


@pytest.mark.parametrize("x", [np.s_[0], np.s_[:4]], ids=["one step", "four steps"])
def test_out_is_filled_and_returned(case, x):
    stream, twin = case.lstm.stream(BATCH), case.lstm.stream(BATCH)
    out = np.full_like(case.grad_y[x], np.nan)
    assert stream.step(case.x[x], out=out) is out
    assert_same_bits(out, twin.step(case.x[x]))


def test_out_may_be_x(rng):
    case = random_case(rng, STEPS, BATCH, input_size=4)
    stream, twin = case.lstm.stream(BATCH), case.lstm.stream(BATCH)
    expected = steps_of(stream, case.x)
    for x_t in case.x:
        twin.step(x_t, out=x_t)
    assert_same_bits((case.x, twin.state), (expected, stream.state))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout(rng, dtype, layout):
    case = random_case(rng, STEPS, BATCH, num_layers=2, dtype=dtype)
    stream, twin = case.lstm.stream(BATCH), case.lstm.stream(BATCH)
    stream.state, twin.state = case.state, tuple(map(layout, case.state))
    assert_same_bits(twin.step(layout(case.x)), stream.step(case.x))
    assert_same_bits(twin.step(layout(case.x[0])), stream.step(case.x[0]))


def test_state_is_copied_out_and_in(case):
    stream = case.lstm.stream(BATCH)
    state = tuple(map(np.copy, case.state))
    stream.state = state
    for array in leaves((state, stream.state)):
        array[...] = np.nan
    assert_same_bits(stream.state, case.state)


def test_outputs_are_kept(case):
    stream = case.lstm.stream(BATCH)
    first = stream.step(case.x[0])
    copy = first.copy()
    stream.step(case.x[1])
    assert_same_bits(first, copy)


def test_reset(case):
    stream = case.lstm.stream(BATCH)
    first = stream.step(case.x)
    stream.reset()
    assert_same_bits(stream.step(case.x), first)


@pytest.mark.parametrize(
    "rows",
    [[1], [0, 2], [-1], np.array([1, 1]), [], [True, False, True], np.array([False, False, False])],
    ids=str,
)
def test_reset_of_rows(case, rows):
    stream = case.lstm.stream(BATCH)
    stream.state = case.state
    stream.reset(rows)
    expected = tuple(map(np.copy, case.state))
    for array in expected:
        array[:, np.asarray(rows, None if len(rows) else int)] = 0
    assert_same_bits(stream.state, expected)


def test_streams_are_independent(case):
    stream, other = case.lstm.stream(BATCH), case.lstm.stream(BATCH)
    other.step(case.x + 1)
    case.lstm(case.x + 2)
    assert_same_bits(stream.step(case.x), case.lstm.stream(BATCH).step(case.x))


@pytest.mark.parametrize("direction", ["bidirectional", "reverse"])
def test_no_stream_from_the_end(direction):
    with pytest.raises(ValueError, match="stream"):
        cylstm.LSTM(3, 4, **{direction: True}).stream()


def test_dropout_does_not_act(rng):
    case = random_case(rng, STEPS, BATCH, num_layers=2, dropout=0.5)
    stream = case.lstm.stream(BATCH)
    assert_same_bits(stream.step(case.x), case.lstm(case.x)[0])


def test_new_parameters_are_seen(rng):
    lstm = random_lstm(rng, input_size=3, hidden_size=4, dtype="float64")
    x = rng.standard_normal((BATCH, 3))
    stream = lstm.stream(BATCH)
    stream.step(x)
    state = stream.state
    with lstm.edit() as parameters:
        parameters["weight_hh_l0"] += 1
    assert_same_bits(stream.step(x)[np.newaxis], lstm(x[np.newaxis], state)[0])
