"""Normalisation, pooling and activations: against PyTorch, differences, each other, and files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cylstm
from cylstm.layers import (
    GELU,
    Attention,
    Dropout,
    Embedding,
    Last,
    LayerNorm,
    Linear,
    MaxPool,
    MeanPool,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from gradient_check import assert_gradient, central_differences

ACTIVATIONS = {
    "relu": ReLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softmax": Softmax,
    "gelu": GELU,
    "gelu-tanh": lambda: GELU("tanh"),
}
NORMS = {
    "norm": lambda dtype="float64": LayerNorm(6, dtype=dtype),
    "norm-eps": lambda dtype="float64": LayerNorm(6, eps=0.1, dtype=dtype),
    "norm-no-bias": lambda dtype="float64": LayerNorm(6, bias=False, dtype=dtype),
    "norm-plain": lambda dtype="float64": LayerNorm(6, elementwise_affine=False, dtype=dtype),
}
POOLS = {"last": Last, "mean": MeanPool, "max": MaxPool}


def randomised(model, seed=3):
    rng = np.random.default_rng(seed)
    with model.edit() as parameters:
        for parameter in parameters.values():
            parameter += rng.normal(scale=0.3, size=parameter.shape)
    return model


def plain(name, x):
    """In float64, from the definitions."""
    if name == "relu":
        return np.where(x > 0, x, 0)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "tanh":
        return np.sinh(x) / np.cosh(x)
    if name == "softmax":
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    if name == "gelu-tanh":
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    from math import erf

    return x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(7,), (1, 1), (5, 3, 6), (0, 4)])
def test_activations_are_their_definitions(name, shape, rng, dtype):
    x = rng.normal(scale=3, size=shape).astype(dtype)
    y = ACTIVATIONS[name]()(x)
    assert y.dtype == dtype
    bound = {"float32": 2e-6, "float64": 1e-14}[dtype]
    expected = plain(name, x.astype(np.float64)) if x.size else x
    np.testing.assert_allclose(y, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("make", [*ACTIVATIONS.values(), *NORMS.values()])
@pytest.mark.parametrize("shape", [(6,), (4, 2, 6)])
def test_gradients_of_what_acts_on_steps(make, shape, rng):
    model, x = randomised(make()), rng.normal(size=shape)
    y, tape = model.forward(x)
    grad_y = rng.normal(size=y.shape)
    grad_x, grads = model.backward(tape, grad_y)
    assert_gradient(grad_x, central_differences(lambda: np.sum(grad_y * model(x)), x))
    state = model.state_dict()
    assert grads.keys() == state.keys()

    def loss():
        model.load_state_dict(state)
        return np.sum(grad_y * model(x))

    for name, gradient in grads.items():
        assert_gradient(gradient, central_differences(loss, state[name]))


@pytest.mark.parametrize("kind", [MeanPool, MaxPool])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, [5, 0, 3]])
def test_gradients_of_pools(kind, batch_first, lengths, rng):
    pool = kind(batch_first=batch_first)
    x = rng.normal(size=(3, 5, 2) if batch_first else (5, 3, 2))
    y, tape = pool.forward(x, lengths)
    grad_y = rng.normal(size=y.shape)
    grad_x, grads = pool.backward(tape, grad_y)
    assert grads == {}
    expected = central_differences(lambda: np.sum(grad_y * pool.forward(x, lengths)[0]), x)
    assert_gradient(grad_x, expected)


@pytest.mark.parametrize("kind", [MeanPool, MaxPool])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pools_see_a_sequences_own_steps_alone(kind, batch_first, rng, dtype):
    x = rng.normal(size=(6, 4, 3)).astype(dtype)
    lengths = [6, 1, 0, 4]
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan  # which must not come through
    own = kind(batch_first=batch_first)
    y = own(x.swapaxes(0, 1) if batch_first else x, lengths=lengths)
    function = np.mean if kind is MeanPool else np.max
    for n, length in enumerate(lengths):
        expected = function(x[:length, n].astype("f8"), axis=0) if length else np.zeros(3)
        np.testing.assert_allclose(y[n], expected, rtol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("kind", [MeanPool, MaxPool])
def test_pools_of_one_sequence_without_a_batch(kind, rng):
    x = rng.normal(size=(6, 3))
    np.testing.assert_array_equal(kind()(x), kind()(x[:, None])[0])
    np.testing.assert_array_equal(kind()(x, lengths=[2]), kind()(x[:2]))


def test_the_first_of_equal_steps_gets_the_gradient():
    pool = MaxPool()
    y, tape = pool.forward(np.ones((3, 1, 1)))
    grad_x, _ = pool.backward(tape, y)
    assert grad_x[:, 0, 0].tolist() == [1, 0, 0]


@given(
    st.integers(1, 40), st.integers(1, 9), st.integers(1, 40), st.sampled_from(["f4", "f8"]),
    st.integers(0, 2**32 - 1), st.booleans(),
)  # fmt: skip
def test_a_sequence_has_the_same_bits_alone_and_in_any_batch(steps, size, width, dtype, seed, f):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, size, width)).astype(dtype)
    given = np.asfortranarray(x) if f else x
    lengths = rng.integers(0, steps + 1, size)
    n = int(rng.integers(size))
    length = int(lengths[n])
    alone = np.ascontiguousarray(x[: max(length, 1), n : n + 1])
    layers = [
        ReLU(),
        Sigmoid(),
        Tanh(),
        Softmax(),
        GELU(),
        GELU("tanh"),
        LayerNorm(width, dtype=dtype),
    ]
    for layer in layers:
        own = randomised(layer)
        np.testing.assert_array_equal(own(given)[: max(length, 1), n], own(alone)[:, 0])
    for pool in (Last(), MeanPool(), MaxPool()):
        whole = pool(given, lengths=lengths)[n]
        np.testing.assert_array_equal(whole, pool(alone, lengths=[length])[0])
        stream = pool.stream(size)
        for t in range(length):
            so_far = stream.step(given[t])
        if length:
            np.testing.assert_array_equal(so_far[n], whole)


@pytest.mark.parametrize("name", [*ACTIVATIONS, *NORMS])
def test_they_are_pytorchs(name, rng):
    torch = pytest.importorskip("torch")
    theirs = {
        "relu": torch.nn.ReLU(),
        "sigmoid": torch.nn.Sigmoid(),
        "tanh": torch.nn.Tanh(),
        "softmax": torch.nn.Softmax(dim=-1),
        "gelu": torch.nn.GELU(),
        "gelu-tanh": torch.nn.GELU(approximate="tanh"),
        "norm": torch.nn.LayerNorm(6),
        "norm-eps": torch.nn.LayerNorm(6, eps=0.1),
        "norm-no-bias": torch.nn.LayerNorm(6, bias=False),
        "norm-plain": torch.nn.LayerNorm(6, elementwise_affine=False),
    }[name].double()
    ours = randomised((ACTIVATIONS | NORMS)[name]())
    theirs.load_state_dict({n: torch.tensor(a) for n, a in ours.state_dict().items()})
    x, grad_y = rng.normal(scale=2, size=(2, 5, 3, 6))
    given = torch.tensor(x, requires_grad=True)
    expected = theirs(given)
    expected.backward(torch.tensor(grad_y))
    y, tape = ours.forward(x)
    grad_x, grads = ours.backward(tape, grad_y)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(grad_x, given.grad.numpy(), rtol=1e-9, atol=1e-13)
    for n, parameter in theirs.named_parameters():
        np.testing.assert_allclose(grads[n], parameter.grad.numpy(), rtol=1e-12, atol=1e-13)


def test_what_is_large_and_what_is_no_number():
    x = np.array([[-np.inf, -1e300, 0, 1e300], [np.nan, 1, 2, 3]])
    np.testing.assert_array_equal(Sigmoid()(x[0]), [0, 0, 0.5, 1])
    np.testing.assert_array_equal(Softmax()(x[0]), [0, 0, 0, 1])
    np.testing.assert_array_equal(GELU()(x[0, 1:]), [0, 0, 1e300])
    assert np.isnan(Softmax()(x)[1]).all()
    assert np.isnan(ReLU()(x)[1, 0])
    norm = LayerNorm(4, dtype="float64")
    assert np.isnan(norm(x)[1]).all()
    assert np.isnan(MaxPool()(x[:, None])[0, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LayerNorm(0), ValueError, "normalized_shape"),
        (lambda: LayerNorm((2, 3)), TypeError, "normalized_shape"),
        (lambda: LayerNorm(3, eps=0), ValueError, "eps"),
        (lambda: LayerNorm(3, eps=np.nan), ValueError, "eps"),
        (lambda: LayerNorm(3, bias=1), TypeError, "bias"),
        (lambda: LayerNorm(3)(np.ones((2, 4), "f4")), ValueError, r"x: expected shape \(..., 3\)"),
        (lambda: LayerNorm(3)(np.ones((2, 3))), TypeError, "x: expected dtype float32"),
        (lambda: Softmax(dim=0), ValueError, "dim: expected -1"),
        (lambda: Softmax()(np.float32(1)), ValueError, "x: expected shape"),
        (lambda: GELU("fast"), ValueError, "approximate"),
        (lambda: ReLU()(np.ones(3, int)), TypeError, "x: expected float32 or float64"),
        (lambda: ReLU()([1.0]), TypeError, "x: expected an array"),
        (lambda: MeanPool(batch_first=1), TypeError, "batch_first"),
        (lambda: MeanPool()(np.ones((2, 1, 1), int)), TypeError, "x: expected float32 or"),
        (lambda: MeanPool()(np.ones(3)), ValueError, "x: expected two or three axes"),
        (lambda: MaxPool()(np.ones((0, 2, 1))), ValueError, "x: expected at least one step"),
        (lambda: MaxPool()(np.ones((3, 2, 1)), lengths=[4, 1]), ValueError, "lengths"),
        (lambda: MeanPool().stream(2).step(np.ones((3, 1))), ValueError, r"one step \(2, F\)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_resets_and_a_mean_do_not_go_together():
    """A row of several sequences has no one mean."""
    model = Sequential(cylstm.LSTM(2, 3, seed=0), MeanPool())
    x = np.ones((4, 1, 2), np.float32)
    with pytest.raises(ValueError, match="resets: expected none for a layer that takes none"):
        model(x, resets=np.zeros((4, 1), bool))


@pytest.mark.parametrize("make", [*ACTIVATIONS.values(), *NORMS.values()])
def test_a_tape_is_the_layers_own(make, rng):
    layer, x = make(), rng.normal(size=(2, 6))
    y, tape = layer.forward(x)
    grad_y = rng.normal(size=y.shape)
    expected = layer.backward(tape, grad_y)[0]
    x[...], y[...] = 7, 7
    np.testing.assert_array_equal(layer.backward(tape, grad_y)[0], expected)
    with pytest.raises(ValueError, match="grad_y"):
        layer.backward(tape, grad_y[:1])


def test_a_norms_tape_of_old_parameters_is_refused():
    norm = LayerNorm(3)
    y, tape = norm.forward(np.ones((2, 3), np.float32))
    randomised(norm)
    with pytest.raises(ValueError, match="tape: the parameters have changed"):
        norm.backward(tape, y)


# Models -----------------------------------------------------------------------------------------


def whole(batch_first=False, pool=MeanPool, dtype="float32"):
    """Every layer but attention, and those in a model within it."""
    return randomised(
        Sequential(
            Embedding(11, 4, dtype=dtype, seed=0),
            LayerNorm(4, dtype=dtype),
            cylstm.LSTM(4, 5, 2, bidirectional=True, batch_first=batch_first, dtype=dtype, seed=1),
            Dropout(0.5),
            Tanh(),
            cylstm.GRU(10, 6, batch_first=batch_first, dtype=dtype, seed=2),
            pool(batch_first=batch_first),
            GELU(),
            Linear(6, 5, dtype=dtype, seed=3),
            ReLU(),
            Linear(5, 3, bias=False, dtype=dtype, seed=4),
            Softmax(),
        )
    )


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_model_of_them_is_saved_and_loaded(pool, tmp_path, rng):
    model = whole(pool=pool)
    model.save(tmp_path / "model")
    loaded = cylstm.load(tmp_path / "model")
    x = rng.integers(11, size=(7, 3))
    np.testing.assert_array_equal(loaded(x, lengths=[7, 2, 0]), model(x, lengths=[7, 2, 0]))
    assert repr(loaded) == repr(model)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_model_of_them_streams_and_predicts(pool, rng):
    model = Sequential(
        LayerNorm(4), cylstm.LSTM(4, 5, seed=1), Sigmoid(), pool(), GELU(), Linear(5, 2, seed=1)
    )
    x = rng.normal(size=(7, 3, 4)).astype(np.float32)
    stream = model.stream(3)
    for t in range(7):
        y = stream.step(x[t])
        np.testing.assert_array_equal(y, model(x[: t + 1]))
    stream.reset([1])
    again = stream.step(x[0])
    np.testing.assert_array_equal(again[1], model(x[:1])[1])
    sequences = [x[:5, 0], x[:2, 1], x[:, 2]]
    predicted = model.predict(sequences)
    for y, sequence in zip(predicted, sequences, strict=True):
        np.testing.assert_array_equal(y, model(sequence[:, None])[0])


def test_a_copy_of_a_stream_of_a_mean_goes_on_by_itself():
    import copy

    stream = MeanPool().stream(1)
    stream.step(np.ones((1, 1)))
    other = copy.copy(stream)
    other.reset()
    assert other.step(np.full((1, 1), 5.0)) == 5
    assert stream.step(np.full((1, 1), 3.0)) == 2


def test_a_pool_of_streams_refuses_a_state_that_it_does_not_know():
    model = Sequential(cylstm.LSTM(2, 3, seed=0), MeanPool())
    with pytest.raises(ValueError, match="model: expected layers without a state beside"):
        cylstm.StreamPool(model, 4)
    assert cylstm.StreamPool(Sequential(cylstm.LSTM(2, 3), LayerNorm(3), Last(), ReLU()), 4)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_model_of_them_is_pytorchs(pool, batch_first, rng):
    torch = pytest.importorskip("torch")
    model = whole(batch_first, pool, "float64")
    parts = torch.nn.ModuleList(
        [
            torch.nn.Embedding(11, 4),
            torch.nn.LayerNorm(4),
            torch.nn.LSTM(4, 5, 2, bidirectional=True, batch_first=batch_first),
            torch.nn.Dropout(),
            torch.nn.Tanh(),
            torch.nn.GRU(10, 6, batch_first=batch_first),
            torch.nn.Identity(),
            torch.nn.GELU(),
            torch.nn.Linear(6, 5),
            torch.nn.ReLU(),
            torch.nn.Linear(5, 3, bias=False),
            torch.nn.Softmax(dim=-1),
        ]
    ).double()
    parts.eval()
    parts.load_state_dict(model.to_torch())
    tokens = rng.integers(11, size=(3, 7) if batch_first else (7, 3))
    x, time = torch.tensor(tokens), int(batch_first)
    for k, part in enumerate(parts):
        x = part(x)
        x = x[0] if isinstance(x, tuple) else x
        if k == 6:
            x = {Last: x.select(time, -1), MeanPool: x.mean(time), MaxPool: x.amax(time)}[pool]
    np.testing.assert_allclose(model(tokens), x.detach().numpy(), rtol=1e-11, atol=1e-13)
    again = whole(batch_first, pool, "float64")
    with again.edit() as parameters:
        for array in parameters.values():
            array[...] = 0
    again.load_state_dict(parts.state_dict())  # its two biases become one
    np.testing.assert_allclose(again(tokens), model(tokens), rtol=1e-12)


def test_what_pytorch_lacks_is_named():
    model = Sequential(Linear(3, 3), Attention(3, score="additive"))
    with pytest.raises(ValueError, match=r"layers\[1\]: expected a layer that PyTorch has"):
        model.to_torch()
    with pytest.raises(KeyError, match="unexpected"):
        Sequential(Linear(3, 3)).load_state_dict(Sequential(Linear(3, 3), Linear(3, 3)).to_torch())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_model_of_them_goes_to_onnx_and_back(pool, batch_first, tmp_path, rng):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = whole(batch_first, pool)
    path = tmp_path / "model.onnx"
    model.to_onnx(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    loaded = cylstm.load(path)
    for size, steps in ((3, 7), (1, 1)):
        tokens = rng.integers(11, size=(size, steps) if batch_first else (steps, size))
        (expected,) = session.run(["y"], {"x": tokens})
        np.testing.assert_allclose(model(tokens), expected, rtol=0, atol=2e-6)
        np.testing.assert_allclose(loaded(tokens), model(tokens), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Linear(3, 4, seed=0), Sigmoid()],
        lambda: [ReLU(), LayerNorm(3, elementwise_affine=False)],
        lambda: [LayerNorm(3, bias=False), Sequential(cylstm.RNN(3, 2, seed=0), Tanh())],
        lambda: [cylstm.LSTM(3, 4, seed=0), GELU("tanh"), cylstm.LSTM(4, 2, seed=1), Last()],
        lambda: [MaxPool(), Tanh()],
    ],
)
def test_more_models_in_onnx(layers, tmp_path, rng):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = Sequential(*layers())
    model.to_onnx(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    rank = len(session.get_inputs()[0].shape)
    x = rng.normal(size=(5, 2, 3)[3 - rank :]).astype(np.float32)
    (expected,) = session.run(["y"], {"x": x})
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(cylstm.load(tmp_path / "model.onnx")(x), expected, rtol=0, atol=2e-6)


def test_what_onnx_lacks_is_named(tmp_path):
    pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    for layers, message in (
        ([Linear(3, 3), Attention(3)], r"layers\[1\]: expected an LSTM, GRU or RNN, or one of"),
        ([cylstm.LSTM(3, 4, proj_size=2)], "proj_size: expected 0"),
        ([Linear(3, 3), Linear(3, 3, dtype="float64")], r"layers\[1\]: expected float32"),
    ):
        with pytest.raises(ValueError, match=message):
            Sequential(*layers).to_onnx(path)
    with pytest.raises(ValueError, match=r"layers\[0\]"):
        Sequential(Linear(3, 3)).quantize().to_onnx(path)
    assert not path.exists()
