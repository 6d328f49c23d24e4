"""Every kind of array at every door: refused by name, or taken for the numbers that it holds."""

import tempfile

import numpy as np
import pytest

import cylstm
from cylstm.io.safetensors import read, write
from cylstm.train import (
    SGD,
    Arrays,
    Buckets,
    Dropout,
    Embedding,
    Last,
    Linear,
    Sequential,
    Streams,
    cross_entropy_loss,
    fit,
    huber_loss,
    mae_loss,
    mse_loss,
    windows,
)
from reference import assert_same_bits

T, N, I, H = 3, 2, 4, 5  # noqa: E741 (the letters of the documentation)
F32 = np.float32


def numbers(*shape, dtype=F32):
    return np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(dtype)


def lstm():
    return cylstm.LSTM(I, H, seed=0)


def backward(**given):
    net = lstm()
    _, _, tape = net.forward(numbers(T, N, I))
    return net.backward(tape, **{"grad_y": numbers(T, N, H)} | given)


def stream(state=None, x=None):
    own = lstm().stream(N)
    if state is not None:
        own.state = state
    return own.step(numbers(N, I) if x is None else x), own.state


def reset(rows):
    own = lstm().stream(N)
    own.step(numbers(N, I))
    own.reset(rows)
    return own.state


def assigned(value):
    net = lstm()
    net.weight_ih_l0 = value
    return net.weight_ih_l0


def loaded(make, name):
    def load(value):
        model = make()
        model.load_state_dict(model.state_dict() | {name: value})
        return dict(model.named_parameters())[name]

    return load


def through(layer, x):
    def run(grad_y):
        _, tape = layer.forward(x)
        return layer.backward(tape, grad_y)[0]

    return run


def epoch(source):
    return [batch[:2] for batch in source.epoch(np.random.default_rng(0))]


def trained(batch):
    model = Linear(I, H, seed=0)
    fit(model, [batch], mse_loss, SGD(model), epochs=1, seed=0)
    return model.state_dict()


def stored(tensor):
    with tempfile.NamedTemporaryFile() as file:
        write(file.name, {"tensor": tensor}, {})
        return read(file.name)[0]


STATE = numbers(1, N, H)
ROWS, LABELS = numbers(T, H), np.array([0, 4, 2])
WHERE, LENGTHS, WORDS = np.array([True, False, True]), np.array([3, 1]), np.array([[0, 1], [2, 0]])

# argument, an array that is right, and what takes it
FLOATS = {
    "call": ("x", numbers(T, N, I), lambda x: lstm()(x)),
    "call, unbatched": ("x", numbers(T, I), lambda x: lstm()(x)),
    "forward": ("x", numbers(T, N, I), lambda x: lstm().forward(x)[:2]),
    "forward, unbatched": ("x", numbers(T, I), lambda x: lstm().forward(x)[:2]),
    "h_0": ("h_0", STATE, lambda h: lstm()(numbers(T, N, I), (h, STATE))),
    "c_0": ("c_0", STATE, lambda c: lstm().forward(numbers(T, N, I), (STATE, c))[:2]),
    "grad_y": ("grad_y", numbers(T, N, H), lambda g: backward(grad_y=g)),
    "grad_hn": ("grad_hn", STATE, lambda g: backward(grad_state=(g, STATE))),
    "grad_cn": ("grad_cn", STATE, lambda g: backward(grad_state=(STATE, g))),
    "step": ("x", numbers(N, I), lambda x: stream(x=x)),
    "stream.h": ("h", STATE, lambda h: stream((h, STATE))),
    "stream.c": ("c", STATE, lambda c: stream((STATE, c))),
    "linear": ("x", numbers(T, I), Linear(I, H, seed=0)),
    "linear, backward": ("grad_y", ROWS, through(Linear(I, H, seed=0), numbers(T, I))),
    "embedding, backward": (
        "grad_y",
        numbers(2, 2, H),
        lambda g: Embedding(3, H, seed=0).backward(WORDS, g)[1]["weight"].values,
    ),
    "dropout": ("x", numbers(T, I), lambda x: Dropout(0.5, seed=0).forward(x)),
    **{
        f"{loss.__name__}, {name}": (name, ROWS, lambda a, n=name, f=loss: f(
            **{"prediction": ROWS + 1, "target": ROWS} | {n: a}
        ))
        for loss in (mse_loss, mae_loss, huber_loss)
        for name in ("prediction", "target")
    },
    "cross_entropy": ("prediction", ROWS, lambda p: cross_entropy_loss(p, LABELS)),
    "batch, x": ("x", numbers(T, I), lambda x: trained((x, ROWS))),
    "batch, target": ("target", ROWS, lambda t: trained((numbers(T, I), t))),
}  # fmt: skip
PARAMETERS = {
    "assigned": ("weight_ih_l0", numbers(4 * H, I), assigned),
    "loaded": ("weight_ih_l0", numbers(4 * H, I), loaded(lstm, "weight_ih_l0")),
    "linear's": ("weight", numbers(H, I), loaded(lambda: Linear(I, H), "weight")),
    "sequential's": (
        "weight",
        numbers(H, I),
        loaded(lambda: Sequential(Linear(I, H)), "0.weight"),
    ),
}
INTEGERS = {
    "lengths": ("lengths", LENGTHS, lambda n: lstm()(numbers(T, N, I), lengths=n)),
    "lengths, forward": (
        "lengths",
        LENGTHS,
        lambda n: lstm().forward(numbers(T, N, I), lengths=n)[:2],
    ),
    "last": ("lengths", LENGTHS, lambda n: Last()(numbers(T, N, I), lengths=n)),
    "words": ("x", WORDS, Embedding(3, H, seed=0)),
    "labels": ("target", LABELS, lambda t: cross_entropy_loss(ROWS, t)),
    "rows": ("rows", np.array([1]), reset),
}
OTHERS = {
    "last": ("x", numbers(T, N, I), Last()),
    "last, backward": ("grad_y", numbers(N, I), through(Last(), numbers(T, N, I))),
    "dropout, backward": ("grad_y", ROWS, through(Dropout(0.0), ROWS)),
    "where": ("where", WHERE, lambda w: mse_loss(ROWS + 1, ROWS, where=w)),
    "where, labels": ("where", WHERE, lambda w: cross_entropy_loss(ROWS, LABELS, where=w)),
    "arrays, x": ("x", ROWS, lambda x: epoch(Arrays(x, ROWS, axes=(0, 0)))),
    "arrays, target": ("target", ROWS, lambda t: epoch(Arrays(ROWS, t, axes=(0, 0)))),
    "arrays, lengths": (
        "lengths",
        LENGTHS,
        lambda n: Arrays(numbers(T, N), numbers(T, N), lengths=n).lengths,
    ),
    "windows": ("series", numbers(T), lambda s: windows(s, 1)),
    "windows, target": ("target", numbers(T), lambda t: windows(ROWS, 1, target=t)),
    "buckets": ("sequences", ROWS, lambda x: epoch(Buckets([x], numbers(1)))),
    "buckets, targets": ("targets", numbers(1), lambda t: epoch(Buckets([ROWS], t))),
    "buckets, each": (
        "targets",
        numbers(T),
        lambda t: epoch(Buckets([ROWS], [t], every_step=True)),
    ),
    "streams": ("x", ROWS, lambda x: epoch(Streams(x, ROWS, 1))),
    "streams, target": ("target", ROWS, lambda t: epoch(Streams(ROWS, t, 1))),
    "stored": ("tensor", ROWS, stored),
}


def doors(*groups):
    chosen = {name: door for group in groups for name, door in group.items()}
    return pytest.mark.parametrize(
        ("argument", "right", "take"), chosen.values(), ids=chosen.keys()
    )


def flattened(result):
    """The arrays and numbers of what a door gave."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in flattened(part)]
    return [np.asarray(result)]


class Own(np.ndarray):
    """A subclass, as libraries of units have them."""


def mapped(array):
    with tempfile.TemporaryFile() as file:
        there = np.memmap(file, array.dtype, "w+", shape=array.shape)
    there[...] = array
    return there


@doors(FLOATS, PARAMETERS, INTEGERS, OTHERS)
def test_what_is_masked_is_refused(argument, right, take):
    mask = np.zeros(right.shape, bool)
    mask.flat[-1] = True
    with pytest.raises(ValueError, match=rf"\b{argument}\b.*: expected an array without masked"):
        take(np.ma.array(right, mask=mask))


@pytest.mark.parametrize(
    "kind",
    [
        np.ma.array,
        lambda array: np.ma.array(array, mask=np.zeros(array.shape, bool)),
        lambda array: array.view(Own),
        mapped,
        lambda array: np.asmatrix(array) if array.ndim == 2 else pytest.skip("of two axes"),
    ],
    ids=["masked", "without a mask set", "subclass", "memmap", "matrix"],
)
@doors(FLOATS, PARAMETERS, INTEGERS, OTHERS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_subclass_is_the_numbers_it_holds(argument, right, take, kind):
    expected, got = flattened(take(right)), flattened(take(kind(right)))
    assert_same_bits(got, expected)
    assert all(type(array) is np.ndarray for array in got)


DTYPES = ["complex64", "complex128", "object", "datetime64[s]", "timedelta64[s]", "i4,f4", "S4"]


def as_dtype(array, dtype):
    if dtype == "i4,f4":
        return np.zeros(array.shape, dtype)
    if dtype in ("datetime64[s]", "timedelta64[s]"):
        return array.astype("i8").astype(dtype)
    return array.astype(dtype)


@pytest.mark.parametrize("dtype", [*DTYPES, "float16", "longdouble", "float64", "int64", "bool"])
@doors(FLOATS)
def test_another_dtype_is_refused(argument, right, take, dtype):
    if np.dtype(dtype) == np.float64 and take in (FLOATS["dropout"][2], FLOATS["cross_entropy"][2]):
        pytest.skip("takes both")
    with pytest.raises(TypeError, match=rf"\b({argument}|target|grad_y)\b.*expected"):
        take(as_dtype(right, dtype))


@pytest.mark.parametrize("dtype", [*DTYPES, "float16", "float64", "U3"])
@doors(INTEGERS)
def test_what_is_no_integer_is_refused(argument, right, take, dtype):
    with pytest.raises(TypeError, match=rf"\b{argument}\b.*expected integers"):
        take(as_dtype(right, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@doors(PARAMETERS)
def test_a_parameter_that_is_not_real_is_refused(argument, right, take, dtype):
    with pytest.raises(TypeError, match=rf"\b{argument}\b.*expected real numbers"):
        take(as_dtype(right, dtype))


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "float64", ">f4"])
@doors(PARAMETERS)
def test_a_parameter_of_another_precision_is_converted(argument, right, take, dtype):
    given = right.astype(dtype)
    assert_same_bits(take(given), given.astype(F32))


@pytest.mark.parametrize("dtype", [*DTYPES, "float16", "longdouble", "bool"])
def test_what_no_file_can_hold(dtype):
    expected = "'tensor' must be float32, float64, int8 or bfloat16's uint16"
    with pytest.raises(TypeError, match=expected):
        stored(as_dtype(ROWS, dtype))


@pytest.mark.parametrize("kind", [np.ma.array, np.asmatrix])
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_out_is_an_array_of_numpys_own(kind):
    with pytest.raises(TypeError, match=r"out: expected an array, got (MaskedArray|matrix)"):
        lstm()(numbers(T, I), out=kind(numbers(T, H)))


@pytest.mark.parametrize("lengths", [[[1], [2, 3]], [[3], 1]])
def test_lists_of_different_lengths_are_no_array(lengths):
    with pytest.raises(ValueError, match="lengths: expected an array, got"):
        lstm()(numbers(T, N, I), lengths=lengths)


def test_a_tensor_that_numpy_cannot_read_is_refused_by_name():
    torch = pytest.importorskip("torch")
    x = torch.ones(T, N, I)
    with pytest.raises(TypeError, match=r"x: expected an array, got Tensor: .*requires grad"):
        lstm()(x.requires_grad_())
    with pytest.raises(TypeError, match=r"x: expected an array, got Tensor: .*BFloat16"):
        lstm()(x.detach().bfloat16())


# Numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [1j, np.complex64(1), np.array(1 + 0j), np.ma.masked, "1", b"1", True, np.True_, None,
     np.array([0.5]), [0.5], np.datetime64(1, "s"), np.timedelta64(1, "s"), np.array("1"),
     np.array(0.5, object)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("name", ["dropout", "forget_bias", "clip"])
def test_what_is_no_number(name, value):
    if name == "clip" and value is None:
        pytest.skip("no bound")
    with pytest.raises(TypeError, match=f"{name}: expected a number, got"):
        cylstm.LSTM(I, H, **{name: value})


@pytest.mark.parametrize(
    "value", [np.ma.array(3, mask=True), np.array(3.0), np.timedelta64(3), np.array([3]), 3j, "3"]
)
def test_what_is_no_integer(value):
    with pytest.raises(TypeError, match="hidden_size: expected an integer, got"):
        cylstm.LSTM(I, value)


@pytest.mark.parametrize("value", [F32(0.5), np.array(0.5), np.ma.array(0.5), np.float16(0.5)])
def test_numbers_of_numpy_are_numbers(value):
    assert cylstm.LSTM(I, H, forget_bias=value).config["forget_bias"] == 0.5


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"forget_bias": 1e39}, "forget_bias"),
        ({"forget_bias": -3.5e38}, "forget_bias"),
        ({"activations": (("hard_sigmoid", 1e39, 0.5), "tanh", "tanh")}, "activations"),
        ({"activations": ("sigmoid", ("hard_sigmoid", 0.2, -1e300), "tanh")}, "activations"),
    ],
)
def test_a_number_beyond_float32(options, argument):
    with pytest.raises(ValueError, match=f"{argument}: expected a number that float32 holds, got"):
        cylstm.LSTM(I, H, **options)
    cylstm.LSTM(I, H, dtype="float64", **options)


def test_the_largest_float32_is_one():
    largest = float(np.finfo(F32).max)
    assert (cylstm.LSTM(I, H, forget_bias=largest).bias_l0[H : 2 * H] == largest).all()


# Sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_layers": 10**9},
        {"num_layers": 2**31 - 1, "bidirectional": True},
        {"hidden_size": 10**8, "num_layers": 3},
        {"input_size": 2**31 - 1, "hidden_size": 2**20},
    ],
)
def test_what_no_memory_holds_is_refused_at_once(sizes, monkeypatch):
    made = []
    monkeypatch.setattr("cylstm.options.Options.parameter_shapes", lambda self: made.append(self))
    with pytest.raises(MemoryError, match=r"num_layers: expected .* at most .* bytes"):
        cylstm.LSTM(**{"input_size": 1, "hidden_size": 1} | sizes)
    assert not made


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, 4 * H * (I + H + 1)),
        ({"num_layers": 3}, 4 * H * (I + H + 1) + 2 * 4 * H * (2 * H + 1)),
        ({"num_layers": 2, "bidirectional": True, "peephole": True, "proj_size": 2}, None),
    ],
)
def test_the_memory_of_the_parameters_is_counted(options, numbers):
    net = cylstm.LSTM(I, H, **options)
    cells = net.num_layers * (2 if net.bidirectional else 1)
    assert numbers is None or net.num_parameters == numbers
    assert net._options.nbytes == 4 * net.num_parameters + 4096 * cells


@pytest.mark.parametrize("model", [lstm, lambda: Sequential(lstm())])
def test_a_file_that_asks_for_a_billion_layers(tmp_path, model):
    model = model()
    model.save(tmp_path / "model")
    tensors, metadata = read(tmp_path / "model")
    changed = metadata["config"].replace('"num_layers": 1', '"num_layers": 1000000000')
    write(tmp_path / "model", tensors, metadata | {"config": changed})
    with pytest.raises(ValueError, match=r"model: .*num_layers: expected parameters of at most"):
        cylstm.load(tmp_path / "model")


# Losses ------------------------------------------------------------------------------------------


def test_logits_without_an_axis():
    with pytest.raises(ValueError, match=r"prediction: expected logits of shape \(..., C\), got"):
        cross_entropy_loss(np.float32(1.0), np.array(0))


@pytest.mark.parametrize("loss", [mse_loss, mae_loss, huber_loss])
def test_a_prediction_without_an_axis_is_one_number(loss):
    value, gradient = loss(np.array(2.0), np.array(1.5))
    many_value, many = loss(np.array([2.0]), np.array([1.5]))
    assert value == many_value
    assert gradient.shape == ()
    assert gradient == many[0]


@pytest.mark.parametrize("index", [1.5, "a", None, True])
def test_a_label_to_ignore_is_an_integer(index):
    with pytest.raises(TypeError, match="ignore_index: expected an integer"):
        cross_entropy_loss(ROWS, LABELS, ignore_index=index)
