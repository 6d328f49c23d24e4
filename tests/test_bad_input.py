"""What is refused, and how: each message names the argument, what was expected and what came."""

import math
import pathlib
import re
import tracemalloc

import numpy as np
import pytest

import cylstm
from reference import assert_same_bits, random_case

NAN, INF = float("nan"), float("inf")
STATM = pathlib.Path("/proc/self/statm")


def refused(error, argument, *words):
    """pytest.raises for a message that names the argument, then holds the words in this order."""
    pattern = ".*".join([rf"\b{argument}\b", *map(re.escape, words)])
    return pytest.raises(error, match=pattern)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("input_size", 0, ValueError),
        ("input_size", -1, ValueError),
        ("input_size", 2**31, ValueError),
        ("input_size", 3.0, TypeError),
        ("input_size", "3", TypeError),
        ("input_size", None, TypeError),
        ("hidden_size", 0, ValueError),
        ("hidden_size", -4, ValueError),
        ("hidden_size", 2**29, ValueError),
        ("hidden_size", 2**40, ValueError),
        ("hidden_size", 2**64, ValueError),
        ("hidden_size", 4.0, TypeError),
        ("num_layers", 0, ValueError),
        ("num_layers", -1, ValueError),
        ("num_layers", 1.0, TypeError),
        ("proj_size", -1, ValueError),
        ("proj_size", 4, ValueError),
        ("proj_size", 5, ValueError),
        ("proj_size", 2.0, TypeError),
        ("dropout", -0.1, ValueError),
        ("dropout", 1.1, ValueError),
        ("dropout", NAN, ValueError),
        ("dropout", "half", TypeError),
        ("clip", 0, ValueError),
        ("clip", -1.0, ValueError),
        ("clip", INF, ValueError),
        ("clip", NAN, ValueError),
        ("clip", "one", TypeError),
        ("forget_bias", INF, ValueError),
        ("forget_bias", NAN, ValueError),
        ("forget_bias", None, TypeError),
        ("activations", ("sigmoid", "tanh", "gelu"), ValueError),
        ("activations", ("sigmoid", "tanh"), ValueError),
        ("activations", (("sigmoid", "tanh", "tanh"), ("sigmoid", "tanh", "tanh")), ValueError),
        ("activations", (("hard_sigmoid", 0.2, NAN), "tanh", "tanh"), ValueError),
        ("activations", (("hard_sigmoid", INF, 0.5), "tanh", "tanh"), ValueError),
        ("activations", (("hard_sigmoid", 0.2), "tanh", "tanh"), ValueError),
        ("dtype", "float16", ValueError),
        ("dtype", "complex128", ValueError),
        ("dtype", "int32", ValueError),
    ],
)
def test_configuration(argument, value, error):
    sizes = {"input_size": 3, "hidden_size": 4}
    with refused(error, argument):
        cylstm.LSTM(**sizes | {argument: value})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"input_size": -7}, ("input_size", "-7")),
        ({"proj_size": 4}, ("proj_size", "4")),
        ({"clip": -1.5}, ("clip", "-1.5")),
        ({"dropout": 1.5}, ("dropout", "1.5")),
        ({"activations": ("sigmoid", "tanh", "gelu")}, ("activations", "sigmoid", "gelu")),
        ({"dtype": "float16"}, ("dtype", "float32", "float64", "float16")),
    ],
)
def test_configuration_message_says_what_came(arguments, words):
    with refused(ValueError, *words):
        cylstm.LSTM(**{"input_size": 3, "hidden_size": 4} | arguments)


def test_both_directions_and_reverse():
    with refused(ValueError, "bidirectional", "reverse"):
        cylstm.LSTM(3, 4, bidirectional=True, reverse=True)


@pytest.fixture
def case(rng):
    return random_case(rng, 5, 2, dtype="float32")


def array(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


BAD_X = [
    (array(5, 2, 3).tolist(), TypeError, ("x", "list")),
    (1.0, TypeError, ("x", "float")),
    (None, TypeError, ("x", "None")),
    ("x", TypeError, ("x", "str")),
    (array(5, 2, 3, dtype="float64"), TypeError, ("x", "float32", "float64")),
    (array(5, 2, 3, dtype="float16"), TypeError, ("x", "float32", "float16")),
    (array(5, 2, 3, dtype="int32"), TypeError, ("x", "float32", "int32")),
    (array(5, 2, 3, dtype="complex64"), TypeError, ("x", "float32", "complex64")),
    (array(5, 2, 3, dtype="object"), TypeError, ("x", "float32", "object")),
    (array(), ValueError, ("x", "()")),
    (array(3), ValueError, ("x", "(3,)")),
    (array(1, 5, 2, 3), ValueError, ("x", "(1, 5, 2, 3)")),
    (array(5, 2, 4), ValueError, ("x", "3", "(5, 2, 4)")),
    (array(5, 0), ValueError, ("x", "3", "(5, 0)")),
]
BAD_STATE = [
    ((array(1, 2, 5), array(1, 2, 4)), ValueError, ("h_0", "(1, 2, 4)", "(1, 2, 5)")),
    ((array(1, 2, 4), array(1, 3, 4)), ValueError, ("c_0", "(1, 2, 4)", "(1, 3, 4)")),
    ((array(2, 4), array(2, 4)), ValueError, ("h_0", "(1, 2, 4)", "(2, 4)")),
    ((array(2, 2, 4), array(2, 2, 4)), ValueError, ("h_0", "(1, 2, 4)", "(2, 2, 4)")),
    ((array(1, 2, 4, dtype="float64"), array(1, 2, 4)), TypeError, ("h_0", "float32", "float64")),
    ((array(1, 2, 4), array(1, 2, 4, dtype="int8")), TypeError, ("c_0", "float32", "int8")),
    ((array(1, 2, 4), array(1, 2, 4).tolist()), TypeError, ("c_0", "list")),
    ((array(1, 2, 4), None), TypeError, ("c_0", "None")),
    (array(2, 1, 2, 4), TypeError, ("state", "h_0", "c_0", "ndarray")),
    ((array(1, 2, 4),), ValueError, ("state", "h_0", "c_0", "1")),
]
BAD_LENGTHS = [
    ([5.0, 2.0], TypeError, ("lengths", "float")),
    ([True, False], TypeError, ("lengths", "bool")),
    (["5", "2"], TypeError, ("lengths",)),
    ("52", TypeError, ("lengths",)),
    ([5, None], TypeError, ("lengths",)),
    ([5, -1], ValueError, ("lengths", "5", "-1")),
    ([6, 2], ValueError, ("lengths", "5", "6")),
    ([2**32 + 1, 2], ValueError, ("lengths", "5", str(2**32 + 1))),
    (np.array([2**64 - 1, 2], np.uint64), ValueError, ("lengths", "5", str(2**64 - 1))),
    ([5], ValueError, ("lengths", "(2,)", "(1,)")),
    ([5, 2, 1], ValueError, ("lengths", "(2,)", "(3,)")),
    ([[5, 2]], ValueError, ("lengths", "(2,)", "(1, 2)")),
    (5, ValueError, ("lengths", "(2,)", "()")),
]
BAD_OUT = [
    (array(5, 2, 4).tolist(), TypeError, ("out", "list")),
    (array(5, 2, 4, dtype="float64"), TypeError, ("out", "float32", "float64")),
    (array(5, 2, 3), ValueError, ("out", "(5, 2, 4)", "(5, 2, 3)")),
    (array(2, 5, 4), ValueError, ("out", "(5, 2, 4)", "(2, 5, 4)")),
    (np.broadcast_to(np.float32(0), (5, 2, 4)), ValueError, ("out", "writ")),
]
BAD_RNG = [
    (5, TypeError, ("rng", "Generator", "int")),
    (np.random, TypeError, ("rng", "Generator", "module")),
]
CALLS = [
    *(({"x": value}, *rest) for value, *rest in BAD_X),
    *(({"state": value}, *rest) for value, *rest in BAD_STATE),
    *(({"lengths": value}, *rest) for value, *rest in BAD_LENGTHS),
]


@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize(("arguments", "error", "words"), CALLS)
def test_call(case, method, arguments, error, words):
    with refused(error, *words):
        getattr(case.lstm, method)(**{"x": case.x} | arguments)


@pytest.mark.parametrize(("generator", "error", "words"), BAD_RNG)
def test_rng(case, generator, error, words):
    with refused(error, *words):
        case.lstm.forward(case.x, rng=generator)


@pytest.mark.parametrize(("out", "error", "words"), BAD_OUT)
def test_out(case, out, error, words):
    with refused(error, *words):
        case.lstm(case.x, out=out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state": (array(1, 1, 4), array(1, 1, 4))}, ("h_0", "(1, 4)", "(1, 1, 4)")),
        ({"lengths": [5, 5]}, ("lengths", "(2,)")),
        ({"lengths": 6}, ("lengths", "5", "6")),
        ({"lengths": -1}, ("lengths", "5", "-1")),
    ],
)
def test_unbatched_call(case, arguments, words):
    with refused(ValueError, *words):
        case.lstm(case.x[:, 0], **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"tape": None}, TypeError, ("tape", "None")),
        ({"grad_y": array(5, 2, 4).tolist()}, TypeError, ("grad_y", "list")),
        ({"grad_y": None}, TypeError, ("grad_y", "None")),
        ({"grad_y": array(5, 2, 4, dtype="float64")}, TypeError, ("grad_y", "float32", "float64")),
        ({"grad_y": array(5, 2, 3)}, ValueError, ("grad_y", "(5, 2, 4)", "(5, 2, 3)")),
        ({"grad_y": array(5, 4)}, ValueError, ("grad_y", "(5, 2, 4)", "(5, 4)")),
        (
            {"grad_state": (array(1, 2, 5), array(1, 2, 4))},
            ValueError,
            ("grad_hn", "(1, 2, 4)", "(1, 2, 5)"),
        ),
        (
            {"grad_state": (array(1, 2, 4), array(1, 2, 4, dtype="float64"))},
            TypeError,
            ("grad_cn", "float32", "float64"),
        ),
        ({"grad_state": (array(1, 2, 4),)}, ValueError, ("grad_state", "1")),
    ],
)
def test_backward(case, arguments, error, words):
    _, _, tape = case.lstm.forward(case.x)
    with refused(error, *words):
        case.lstm.backward(**{"tape": tape, "grad_y": case.grad_y} | arguments)


@pytest.mark.parametrize(
    ("batch_size", "error"), [(-1, ValueError), (1.0, TypeError), (None, TypeError)]
)
def test_batch_size_of_stream(case, batch_size, error):
    with refused(error, "batch_size", str(batch_size)):
        case.lstm.stream(batch_size)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        *(({"x": value}, *rest) for value, *rest in BAD_X),
        ({"x": array(3, 3)}, ValueError, ("x", "(2, 3)", "(3, 3)")),
        ({"x": array(5, 3, 3)}, ValueError, ("x", "2", "(5, 3, 3)")),
        ({"out": array(4)}, ValueError, ("out", "(2, 4)", "(4,)")),
        ({"out": array(2, 4, dtype="float64")}, TypeError, ("out", "float32", "float64")),
    ],
)
def test_step_leaves_the_state(case, arguments, error, words):
    stream = case.lstm.stream(2)
    stream.state = case.state
    with refused(error, *words):
        stream.step(**{"x": case.x[0]} | arguments)
    assert_same_bits(stream.state, case.state)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([2], IndexError),
        ([0, -3], IndexError),
        ([True], IndexError),
        ([0.5], TypeError),
        ("0", TypeError),
    ],
)
def test_reset_leaves_the_state(case, rows, error):
    stream = case.lstm.stream(2)
    stream.state = case.state
    with refused(error, "rows"):
        stream.reset(rows)
    assert_same_bits(stream.state, case.state)


@pytest.mark.parametrize(("state", "error", "words"), BAD_STATE)
def test_bad_state_leaves_the_state(case, state, error, words):
    stream = case.lstm.stream(2)
    stream.state = case.state
    with refused(error, *(word.removesuffix("_0") for word in words)):
        stream.state = state
    assert_same_bits(stream.state, case.state)


@pytest.mark.parametrize(
    ("threads", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)]
)
def test_number_of_threads(threads, error):
    before = cylstm.get_num_threads()
    with refused(error, "n", str(threads)):
        cylstm.set_num_threads(threads)
    assert cylstm.get_num_threads() == before


@pytest.mark.parametrize(
    "shape", [(2**31, 1, 1), (1, 2**31, 1), (2**16, 2**15, 1), (2**31, 2**29, 1), (2**31, 1)]
)
@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_more_rows_than_blas_can_count(shape, method):
    lstm = cylstm.LSTM(1, 1)
    x = np.lib.stride_tricks.as_strided(array(1), shape, strides=[0] * len(shape))
    tracemalloc.start()
    try:
        with refused(ValueError, "x", str(2**31 - 1), str(math.prod(shape))):
            getattr(lstm, method)(x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.fixture
def little_memory():
    """No more than 256 MiB can be had, also where the kernel overcommits."""
    if not STATM.exists():
        pytest.skip("reads /proc")
    resource = pytest.importorskip("resource")
    now = int(STATM.read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("sizes", [(2**31 - 1, 2**29 - 1), (2**14, 2**14), (1, 2**29 - 1)])
def test_no_memory_for_the_parameters(sizes):
    with pytest.raises(MemoryError):
        cylstm.LSTM(*sizes)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize("shape", [(2**20, 1, 1), (1, 2**20, 1), (2**20, 1)])
def test_no_memory_for_the_outputs(rng, method, shape):
    case = random_case(rng, 5, 2, input_size=1, hidden_size=600, dtype="float32")
    expected = case.lstm(*case.inputs)
    with pytest.raises(MemoryError):
        getattr(case.lstm, method)(np.broadcast_to(np.float32(1), shape))
    assert_same_bits(case.lstm(*case.inputs), expected)
