"""The same bits every way: alone or in a batch, padded, in parts, on any number of threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.core.kernels import PRODUCT
from reference import assert_same_bits, random_case
from strategies import configs, seeds
from threads import threads_as_before

pytestmark = pytest.mark.skipif(PRODUCT == "blas", reason="BLAS promises no such thing")

widths = st.integers(1, 40) | st.sampled_from([64, 100, 160])


@pytest.fixture(autouse=True)
def _threads_as_before():
    with threads_as_before():
        yield


@st.composite
def ragged_cases(draw, streamable=False):
    """Any options; wide layers too, whose hidden units the threads share out."""
    config = draw(configs(sizes=widths)) | {"dtype": draw(st.sampled_from(["float32", "float64"]))}
    config["batch_first"] = False
    if streamable:
        config |= {"bidirectional": False, "reverse": False}
        if len(config["activations"]) == 2:
            config["activations"] = config["activations"][0]
    steps, batch = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(seeds))
    return random_case(rng, steps, batch, rng.integers(0, steps + 1, batch), **config)


def row(case, n):
    """One sequence of a case, cut to its length."""
    x = case.x[: case.lengths[n], n : n + 1]
    return np.ascontiguousarray(x), tuple(s[:, n : n + 1] for s in case.state)


@settings(max_examples=60)
@given(case=ragged_cases(), threads=st.integers(2, 7))
def test_any_number_of_threads(case, threads):
    cylstm.set_num_threads(1)
    expected = case.lstm(*case.inputs), case.lstm(case.x)
    cylstm.set_num_threads(threads)
    assert_same_bits((case.lstm(*case.inputs), case.lstm(case.x)), expected)


@settings(max_examples=60)
@given(case=ragged_cases(), threads=st.integers(2, 7))
def test_gradients_with_any_number_of_threads(case, threads):
    cylstm.set_num_threads(1)
    expected = case.gradients()
    cylstm.set_num_threads(threads)
    assert_same_bits(case.gradients(), expected)


@settings(max_examples=60)
@given(case=ragged_cases())
def test_alone_or_in_a_batch(case):
    y, (h, c) = case.lstm(*case.inputs)
    for n, length in enumerate(case.lengths):
        alone = case.lstm(*row(case, n))
        in_batch = y[:length, n : n + 1], (h[:, n : n + 1], c[:, n : n + 1])
        assert_same_bits(alone, in_batch)


@settings(max_examples=40)
@given(case=ragged_cases(), data=st.data())
def test_any_order_and_padding(case, data):
    order = np.array(data.draw(st.permutations(range(len(case.lengths)))))
    padding = np.full((3, *case.x.shape[1:]), np.nan, case.x.dtype)
    y, (h, c) = case.lstm(*case.inputs)
    x, state = np.concatenate([case.x, padding])[:, order], tuple(s[:, order] for s in case.state)
    moved_y, (moved_h, moved_c) = case.lstm(x, state, case.lengths[order])
    assert_same_bits((moved_y[:-3], moved_h, moved_c), (y[:, order], h[:, order], c[:, order]))


@settings(max_examples=40)
@given(case=ragged_cases(streamable=True), data=st.data())
def test_in_parts_or_step_by_step(case, data):
    y, (h, c) = case.lstm(case.x, case.state)
    cut = data.draw(st.integers(0, len(case.x)))
    first, state = case.lstm(case.x[:cut], case.state)
    second, state = case.lstm(case.x[cut:], state)
    assert_same_bits((np.concatenate([first, second]), state), (y, (h, c)))
    stream = case.lstm.stream(case.x.shape[1])
    stream.state = case.state
    steps = [stream.step(x_t) for x_t in case.x]
    assert_same_bits((np.stack(steps), stream.state), (y, (h, c)))


@pytest.mark.parametrize("steps", [1, 95, 96, 97, 400])
def test_blocks_of_steps(rng, steps):
    """A block of steps is projected at once: its edge must not show."""
    case = random_case(rng, steps, 2, hidden_size=33, bidirectional=True, dtype="float32")
    y, _ = case.lstm(case.x)
    for n in range(2):
        assert_same_bits(case.lstm(case.x[:, n : n + 1])[0], y[:, n : n + 1])


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("hidden", [160, 256])
def test_layers_in_one_memory_with_threads(rng, hidden, threads):
    """A layer writes where it reads: members of a team must not run ahead of each other."""
    case = random_case(
        rng, 300, 1, input_size=16, hidden_size=hidden, num_layers=3, dtype="float32"
    )
    cylstm.set_num_threads(1)
    expected = case.lstm(case.x)
    cylstm.set_num_threads(threads)
    for _ in range(10):
        assert_same_bits(case.lstm(case.x), expected)


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    "options", [{}, {"reverse": True}, {"proj_size": 7}, {"peephole": True, "dtype": "float64"}]
)
def test_layers_that_follow_each_other(rng, batch, threads, options):
    """Threads that find too little in a layer take the next, a few steps behind."""
    config = {"input_size": 20, "hidden_size": 40, "num_layers": 4, "dtype": "float32"} | options
    lengths = rng.integers(0, 301, batch)
    lengths[0] = 300
    case = random_case(rng, 300, batch, lengths, **config)
    cylstm.set_num_threads(1)
    expected = case.lstm(*case.inputs), case.lstm(case.x)
    cylstm.set_num_threads(threads)
    for _ in range(5):
        assert_same_bits((case.lstm(*case.inputs), case.lstm(case.x)), expected)


def test_layers_that_follow_each_other_where_x_is(rng):
    config = {"input_size": 40, "hidden_size": 40, "num_layers": 3, "dtype": "float32"}
    case = random_case(rng, 200, 1, **config)
    expected = case.lstm(case.x)
    cylstm.set_num_threads(3)
    x = case.x.copy()
    assert_same_bits(case.lstm(x, out=x), expected)


def test_stream_whose_output_overlaps_its_input(rng):
    case = random_case(rng, 1, 64, input_size=64, hidden_size=64, dtype="float32")
    expected = case.lstm.stream(64).step(case.x[0])
    cylstm.set_num_threads(2)
    buffer = np.empty((65, 64), np.float32)
    buffer[:64] = case.x[0]
    case.lstm.stream(64).step(buffer[:64], out=buffer[1:])
    assert_same_bits(buffer[1:], expected)
