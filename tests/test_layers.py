"""Layers: every gradient by central differences, the state and the lengths, the model's file."""

import pickle

import numpy as np
import pytest

import cylstm
from cylstm.io.safetensors import check_model, read, write_model
from cylstm.train import (
    Dropout,
    Embedding,
    Last,
    Layer,
    Linear,
    RowGradient,
    Sequential,
)
from gradient_check import assert_gradient, central_differences

MODELS = {
    "linear": (lambda: Linear(3, 2, dtype="float64", seed=1), (4, 2, 3)),
    "linear-vector": (lambda: Linear(3, 2, dtype="float64", seed=1), (3,)),
    "linear-no-bias": (lambda: Linear(3, 2, bias=False, dtype="float64", seed=1), (5, 3)),
    "linear-no-rows": (lambda: Linear(3, 2, dtype="float64", seed=1), (0, 3)),
    "last": (Last, (4, 2, 3)),
    "last-unbatched": (Last, (4, 3)),
    "last-batch-first": (lambda: Last(batch_first=True), (2, 4, 3)),
    "last-batch-first-unbatched": (lambda: Last(batch_first=True), (4, 3)),
    "sequential": (
        lambda: Sequential(
            cylstm.LSTM(3, 5, dtype="float64", seed=1),
            Linear(5, 4, dtype="float64", seed=2),
            cylstm.LSTM(4, 3, dtype="float64", seed=3),
            Last(),
            Linear(3, 2, dtype="float64", seed=4),
        ),
        (6, 2, 3),
    ),
    "sequential-batch-first": (
        lambda: Sequential(
            cylstm.LSTM(3, 5, batch_first=True, dtype="float64", seed=1),
            Last(batch_first=True),
        ),
        (2, 1, 3),
    ),
    "dropout": (lambda: Dropout(0.0), (4, 2, 3)),
    "nested": (
        lambda: Sequential(Sequential(Linear(3, 2, dtype="float64", seed=1)), Last()),
        (4, 2, 3),
    ),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def case(request):
    make, shape = request.param
    model = make()
    rng = np.random.default_rng(7)
    with model.edit() as parameters:  # no parameter is zero, biases included
        for parameter in parameters.values():
            parameter += rng.normal(scale=0.1, size=parameter.shape)
    return model, rng.normal(size=shape)


# Layers -----------------------------------------------------------------------------------------


def test_gradient_of_the_input(case, rng):
    model, x = case
    y, tape = model.forward(x)
    grad_y = rng.normal(size=y.shape)
    grad_x, _ = model.backward(tape, grad_y)
    assert_gradient(grad_x, central_differences(lambda: np.sum(grad_y * model(x)), x))


def test_gradient_of_each_parameter(case, rng):
    model, x = case
    y, tape = model.forward(x)
    grad_y = rng.normal(size=y.shape)
    _, grads = model.backward(tape, grad_y)
    assert grads.keys() == dict(model.named_parameters()).keys()
    state = model.state_dict()

    def loss():
        model.load_state_dict(state)
        return np.sum(grad_y * model(x))

    for name, gradient in grads.items():
        assert_gradient(gradient, central_differences(loss, state[name]))


def test_inference_gives_what_forward_does(case):
    model, x = case
    np.testing.assert_allclose(model(x), model.forward(x)[0], rtol=1e-13, atol=1e-14)


def test_a_tape_serves_more_than_once(case, rng):
    model, x = case
    y, tape = model.forward(x)
    grad_y = rng.normal(size=y.shape)
    first, second = model.backward(tape, grad_y), model.backward(tape, grad_y)
    np.testing.assert_array_equal(first[0], second[0])
    for name in first[1]:
        np.testing.assert_array_equal(first[1][name], second[1][name])


def test_linear_is_pytorchs(rng):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(3, 2).double()
    ours = Linear(3, 2, dtype="float64")
    ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    x = rng.normal(size=(4, 5, 3))
    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(x), expected, rtol=0, atol=2e-15)  # sums that may cancel


def test_linear_begins_glorot_uniform_and_seeded():
    weight = Linear(200, 100, seed=3).state_dict()["weight"]
    limit = np.sqrt(6 / 300)
    assert 0.99 * limit < np.abs(weight).max() <= limit
    assert abs(weight.mean()) < 0.01 * limit
    np.testing.assert_array_equal(weight, Linear(200, 100, seed=3).state_dict()["weight"])
    assert not Linear(200, 100, seed=3).state_dict()["bias"].any()


def test_linear_computes_in_its_dtype(dtype):
    linear = Linear(2, 3, dtype=dtype)
    y, tape = linear.forward(np.ones((4, 2), dtype))
    grad_x, grads = linear.backward(tape, y)
    assert {y.dtype, grad_x.dtype, *(g.dtype for g in grads.values())} == {np.dtype(dtype)}


def test_last_is_a_copy():
    x = np.ones((2, 1, 3))
    Last()(x)[...] = 0
    assert x.all()


def test_parameters_change_in_edit_alone(case):
    model, _ = case
    for _, parameter in model.named_parameters():
        with pytest.raises(ValueError, match="read-only"):
            parameter += 1
    before = model.state_dict()
    with model.edit() as parameters:
        for parameter in parameters.values():
            parameter += 1
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(model.state_dict()[name], before[name] + 1)
        with pytest.raises(ValueError, match="read-only"):
            parameter += 1


def test_a_model_can_be_pickled(case):
    model, x = case
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_a_sequential_gives_its_layers_back():
    lstm, last, linear = cylstm.LSTM(1, 2), Last(), Linear(2, 1)
    model = Sequential(lstm, last, linear)
    assert list(model) == [lstm, last, linear]
    assert len(model) == 3
    assert model[-1] is linear
    assert [name for name, _ in model.named_parameters()] == [
        "0.weight_ih_l0",
        "0.weight_hh_l0",
        "0.bias_l0",
        "2.weight",
        "2.bias",
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Linear(0, 1), ValueError, "in_features: expected an integer from 1 .* got 0"),
        (lambda: Linear(1, 2.0), TypeError, "out_features: expected an integer, got 2.0"),
        (lambda: Linear(True, 1), TypeError, "in_features: .* got True"),
        (lambda: Linear(1, 1, bias=None), TypeError, "bias: expected True or False, got None"),
        (lambda: Linear(1, 1, dtype="float16"), ValueError, "dtype: expected .* got 'float16'"),
        (lambda: Linear(3, 1)(np.ones(3)), TypeError, "x: expected dtype float32, got float64"),
        (lambda: Linear(3, 1)([1.0]), TypeError, "x: expected an array, got list"),
        (
            lambda: Linear(3, 1)(np.ones(2, "f4")),
            ValueError,
            r"x: expected shape \(\.\.\., 3\), got",
        ),
        (lambda: Linear(3, 1)(np.float32(1)), ValueError, r"x: expected .* got \(\)"),
        (
            lambda: (m := Linear(3, 1)).backward(
                m.forward(np.ones((2, 3), "f4"))[1], np.ones((2, 2), "f4")
            ),
            ValueError,
            r"grad_y: expected the output's shape \(2, 1\), got \(2, 2\)",
        ),
        (
            lambda: Last()(np.ones(3)),
            ValueError,
            r"x: expected two or three axes, got shape \(3,\)",
        ),
        (lambda: Last()(np.ones((0, 2, 3))), ValueError, "at least one step"),
        (lambda: Last(True)(np.ones((2, 0, 3))), ValueError, "at least one step"),
        (
            lambda: Last().backward(Last().forward(np.ones((4, 2, 3)))[1], np.ones(3)),
            ValueError,
            r"grad_y: expected the output's shape \(2, 3\), got \(3,\)",
        ),
        (lambda: Embedding(3, 2, 3), ValueError, "padding_idx: expected 0 to 2, got 3"),
        (lambda: Embedding(3, 2)(np.ones(2)), TypeError, "x: expected integers, got float64"),
        (lambda: Embedding(3, 2)(np.array([0, 3])), ValueError, "x: expected 0 to 2, got 0 to 3"),
        (lambda: Embedding(3, 2)(np.array([-1])), ValueError, "x: expected 0 to 2, got -1"),
        (lambda: Dropout(1.5), ValueError, "p: expected a number from 0 to 1, got 1.5"),
        (lambda: Dropout("x"), TypeError, "p: expected a number, got 'x'"),
        (lambda: Dropout().forward(np.ones(2, int)), TypeError, "x: expected float32 or float64"),
        (lambda: Dropout().forward(np.ones(2), 3), TypeError, "rng: expected a numpy.random.Gen"),
        (
            lambda: Last()(np.ones((4, 2, 3)), lengths=[4, 5]),
            ValueError,
            r"lengths: expected 0 to 4 \(the steps of x\), got 4 to 5",
        ),
        (
            lambda: Sequential(Last())(np.ones((4, 2, 3)), state=[None, None]),
            ValueError,
            "state: expected a list, one for each of 1 layers",
        ),
        (lambda: Sequential(), ValueError, "layers: expected at least one"),
        (lambda: Sequential(Last(), 3), TypeError, r"layers\[1\]: expected a Layer .* got 3"),
        (lambda: Sequential(*[Last()] * 2), ValueError, "layers: .* got one twice"),
        (
            lambda: Linear(1, 1).load_state_dict({"weight": [[1.0]]}),
            KeyError,
            r"state: missing \['bias'\], unexpected \[\]",
        ),
        (
            lambda: Linear(1, 1).load_state_dict({"weight": [[1]], "bias": [1], "w": 1}),
            KeyError,
            r"state: missing \[\], unexpected \['w'\]",
        ),
        (
            lambda: Linear(1, 1).load_state_dict({"weight": np.ones(1), "bias": np.ones(1)}),
            ValueError,
            r"weight: expected shape \(1, 1\), got \(1,\)",
        ),
    ],
)
def test_bad_input_to_layers(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Lengths, state, randomness -----------------------------------------------------------------------


def random_model(*layers):
    """No parameter is zero."""
    model, rng = Sequential(*layers), np.random.default_rng(11)
    with model.edit() as parameters:
        for parameter in parameters.values():
            parameter += rng.normal(scale=0.1, size=parameter.shape)
    return model


def ragged_model(batch_first=False, last=True):
    options = {"batch_first": batch_first, "dtype": "float64"}
    ending = [Last(batch_first)] if last else []
    return random_model(
        Embedding(7, 3, padding_idx=2, dtype="float64", seed=1),
        cylstm.LSTM(3, 4, num_layers=2, bidirectional=True, seed=2, **options),
        Linear(8, 3, dtype="float64", seed=3),
        cylstm.LSTM(3, 4, seed=4, **options),
        *ending,
        Linear(4, 2, dtype="float64", seed=5),
    )


LENGTHS = np.array([5, 0, 2, 1])


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_ragged_batch_is_its_sequences_one_by_one(rng, batch_first):
    model = ragged_model(batch_first)
    x = rng.integers(7, size=(4, 5) if batch_first else (5, 4))
    y, _ = model.run(x, lengths=LENGTHS)
    np.testing.assert_allclose(model.forward(x, lengths=LENGTHS)[0], y, rtol=1e-12)
    for n, length in enumerate(LENGTHS):
        if length:
            alone = x[n : n + 1, :length] if batch_first else x[:length, n : n + 1]
            np.testing.assert_allclose(model(alone)[0], y[n], rtol=1e-12)
    nothing = model[-1](np.zeros((1, 4)))[0]
    np.testing.assert_array_equal(y[1], nothing)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_gradients_over_ragged_sequences(rng, last, batch_first):
    """Of every parameter, the state and lengths given; what is past an end has no gradient."""
    model = ragged_model(batch_first, last)
    # The state of the bidirectional LSTM too: it need not be where sequences really go on.
    x = rng.integers(7, size=(4, 5) if batch_first else (5, 4))
    state = [
        None if after is None else tuple(rng.normal(size=part.shape) for part in after)
        for after in model.run(x)[1]
    ]
    y, tape = model.forward(x, state, LENGTHS)
    steps = np.arange(5)[:, None] < LENGTHS
    counts = np.ones(4, bool) if last else steps.T if batch_first else steps
    grad_y = rng.normal(size=y.shape) * counts[..., None]
    grad_x, grads = model.backward(tape, grad_y)
    assert grad_x is None
    weights = model.state_dict()

    def loss():
        model.load_state_dict(weights)
        return np.sum(grad_y * model(x, state=state, lengths=LENGTHS))

    for name, gradient in grads.items():
        expected = central_differences(loss, weights[name])
        if isinstance(gradient, RowGradient):
            gradient = gradient.dense()
            expected[2] = 0  # the padding's vector does not learn
        assert_gradient(gradient, expected)


@pytest.mark.parametrize("batch_first", [False, True])
def test_gradient_of_the_last_valid_step(rng, batch_first):
    last, x = Last(batch_first), rng.normal(size=(4, 5, 3))
    lengths = [5, 0, 2, 1] if batch_first else [4, 0, 2, 1, 3]
    y, tape = last.forward(x, lengths)
    grad_y = rng.normal(size=y.shape)
    grad_x, _ = last.backward(tape, grad_y)
    expected = central_differences(lambda: np.sum(grad_y * last(x, lengths=lengths)), x)
    assert_gradient(grad_x, expected)
    assert not y[1].any()


def test_the_last_step_of_one_ragged_sequence(rng):
    x = rng.normal(size=(5, 3))
    y, tape = Last().forward(x, 2)
    np.testing.assert_array_equal(y, x[1])
    grad_x, _ = Last().backward(tape, np.ones(3))
    np.testing.assert_array_equal(grad_x, np.eye(5)[1][:, None] * np.ones(3))


def test_lengths_end_where_time_does(rng):
    """After `Last` the rows are steps of nothing that `lengths` speaks of."""
    first, second = cylstm.LSTM(3, 4, seed=1), cylstm.LSTM(4, 2, seed=2)
    x = rng.normal(size=(5, 4, 3)).astype(np.float32)
    model = Sequential(first, Last(), second)
    expected = second(Last()(first(x, lengths=LENGTHS)[0], lengths=LENGTHS))[0]
    np.testing.assert_array_equal(model(x, lengths=LENGTHS), expected)
    np.testing.assert_allclose(model.forward(x, lengths=LENGTHS)[0], expected, rtol=1e-5)


def test_a_sequence_in_parts_is_the_whole(rng):
    model = random_model(
        Embedding(7, 3, dtype="float64"),
        cylstm.LSTM(3, 4, num_layers=2, dtype="float64"),
        Sequential(Linear(4, 3, dtype="float64"), cylstm.LSTM(3, 2, dtype="float64")),
    )
    x = rng.integers(7, size=(9, 2))
    whole = model(x)
    first, state = model.run(x[:4])
    again, tape = model.forward(x[:4])
    np.testing.assert_allclose(again, first, rtol=1e-12)
    np.testing.assert_array_equal(np.concatenate([first, model(x[4:], state=state)]), whole)
    rest, _ = model.forward(x[4:], model.state_after(tape))
    np.testing.assert_allclose(rest, whole[4:], rtol=1e-12)


def test_a_stream_gives_what_the_whole_does(rng):
    model = random_model(
        Embedding(7, 3), Dropout(0.5), cylstm.LSTM(3, 8, num_layers=2), Last(), Linear(8, 2)
    )
    x = rng.integers(7, size=(6, 3))
    stream = model.stream(batch_size=3)
    steps = [stream.step(x_t) for x_t in x]
    for t, y_t in enumerate(steps):
        np.testing.assert_allclose(y_t, model(x[: t + 1]), rtol=1e-5, atol=1e-6)
    stream.reset([0])
    y_t = stream.step(x[0])
    np.testing.assert_array_equal(y_t[0], steps[0][0])
    assert (y_t[1] != steps[0][1]).any()


def test_dropout_in_training_alone(rng, dtype):
    x = (rng.normal(size=(50, 40)) + 10).astype(dtype)
    dropout = Dropout(0.3, seed=0)
    assert dropout(x) is x
    y, mask = dropout.forward(x, np.random.default_rng(1))
    assert y.dtype == mask.dtype == dtype
    assert abs(np.mean(y == 0) - 0.3) < 0.03
    np.testing.assert_allclose(y[y != 0], x[y != 0] / 0.7, rtol=1e-6)
    grad_x, grads = dropout.backward(mask, x)
    np.testing.assert_array_equal(grad_x, y)
    assert grads == {}
    np.testing.assert_array_equal(dropout.forward(x, np.random.default_rng(1))[0], y)
    assert (dropout.forward(x)[0] != dropout.forward(x)[0]).any()
    assert not Dropout(1).forward(x)[0].any()


def test_a_sequential_hands_its_randomness_on(rng):
    model = Sequential(Dropout(0.5), cylstm.LSTM(2, 3, num_layers=2, dropout=0.5), Dropout(0.5))
    x = rng.normal(size=(4, 5, 2)).astype(np.float32)
    first, second = (model.forward(x, rng=np.random.default_rng(7))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (model.forward(x, rng=np.random.default_rng(8))[0] != first).any()
    np.testing.assert_array_equal(model(x), model(x))


def test_a_layer_that_takes_nothing_fits_in(rng):
    class Square(Layer):
        config = None

        def forward(self, x):
            return x * x, x

        def backward(self, tape, grad_y):
            return 2 * tape * grad_y, {}

    model = Sequential(cylstm.LSTM(2, 3, dtype="float64"), Square(), Last())
    x = rng.normal(size=(4, 3, 2))
    y, tape = model.forward(x, lengths=[4, 1, 3])
    grad_y = rng.normal(size=y.shape)
    expected = central_differences(lambda: np.sum(grad_y * model(x, lengths=[4, 1, 3])), x)
    assert_gradient(model.backward(tape, grad_y)[0], expected)


def test_batch_first_is_said_by_the_layers():
    assert Sequential(Linear(1, 1)).batch_first is None
    assert Sequential(cylstm.LSTM(1, 1, batch_first=True), Linear(1, 1)).batch_first is True
    assert Sequential(Linear(1, 1), Last()).batch_first is False
    with pytest.raises(ValueError, match="batch_first: expected the same of all layers"):
        Sequential(cylstm.LSTM(1, 1, batch_first=True), Last()).batch_first  # noqa: B018


# The embedding ------------------------------------------------------------------------------------


def test_embedding_is_pytorchs(rng):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Embedding(6, 4, padding_idx=1, dtype=torch.float64)
    ours = Embedding(6, 4, padding_idx=1, dtype="float64")
    assert not ours.state_dict()["weight"][1].any()
    ours.load_state_dict({"weight": theirs.weight.detach().numpy()})
    x = rng.choice([0, 1, 3, 5], size=(7, 3))
    expected = theirs(torch.tensor(x))
    y, tape = ours.forward(x)
    np.testing.assert_array_equal(y, expected.detach().numpy())
    grad_y = rng.normal(size=y.shape)
    expected.backward(torch.tensor(grad_y))
    grad_x, grads = ours.backward(tape, grad_y)
    assert grad_x is None
    assert grads["weight"].rows.tolist() == [0, 3, 5]
    np.testing.assert_allclose(grads["weight"].dense(), theirs.weight.grad.numpy(), rtol=1e-13)


def test_an_embedding_of_nothing():
    y, tape = Embedding(3, 2).forward(np.zeros((4, 0), int))
    assert y.shape == (4, 0, 2)
    gradient = Embedding(3, 2).backward(tape, y)[1]["weight"]
    assert not gradient.dense().any()
    assert gradient.dense().shape == (3, 2)


def test_an_embedding_begins_standard_normal_and_seeded():
    weight = Embedding(200, 100, seed=3).state_dict()["weight"]
    assert weight.mean() == pytest.approx(0, abs=0.03)
    assert weight.std() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(weight, Embedding(200, 100, seed=3).state_dict()["weight"])


# A Sequential and its file ----------------------------------------------------------------------


@pytest.fixture
def model():
    return Sequential(cylstm.LSTM(2, 4, seed=1), Last(), Linear(4, 3, seed=2))


def test_every_layer_is_saved_and_loaded(tmp_path, rng):
    model = Sequential(
        Embedding(9, 4, padding_idx=3, seed=0),
        Dropout(0.25),
        cylstm.LSTM(4, 5, num_layers=2, dropout=0.1, bidirectional=True, peephole=True, seed=0),
        Last(),
        Linear(10, 2, bias=False, seed=0),
    )
    model.save(tmp_path / "model")
    loaded = cylstm.load(tmp_path / "model")
    x = rng.integers(9, size=(6, 3))
    np.testing.assert_array_equal(loaded(x, lengths=[6, 0, 2]), model(x, lengths=[6, 0, 2]))
    assert repr(loaded) == repr(model)


def test_a_loaded_model_gives_the_same_bits(model, tmp_path, rng):
    model.save(tmp_path / "model")
    loaded = cylstm.load(tmp_path / "model")
    x = rng.normal(size=(7, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert repr(loaded) == repr(model)


def test_a_layer_that_load_cannot_build_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match=r"layers\[0\]: expected one of .* got Sequential"):
        Sequential(Sequential(Last())).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def drop_size(config, tensors):
    del config["layers"][2]["config"]["out_features"]


def drop_bias(config, tensors):
    del config["layers"][2]["config"]["bias"]


def drop_hidden_size(config, tensors):
    del config["layers"][0]["config"]["hidden_size"]


def make_embedding_huge(config, tensors):
    arguments = {"num_embeddings": 10**12, "embedding_dim": 4, "padding_idx": None}
    config["layers"][2] = {"kind": "Embedding", "config": arguments | {"dtype": "float32"}}


def change_kind(config, tensors):
    config["layers"][2]["kind"] = "Conv"


def change_kind_to_a_list(config, tensors):
    config["layers"][2]["kind"] = []


def change_arguments(config, tensors):
    config["layers"][2]["config"] = [4, 3]


def change_layer(config, tensors):
    config["layers"][2] = "Linear"


def change_layers(config, tensors):
    config["layers"] = {}


def change_keys(config, tensors):
    config["more"] = 1


def add_argument(config, tensors):
    config["layers"][2]["config"]["scale"] = 2


def change_size(config, tensors):
    config["layers"][2]["config"]["out_features"] = 2


def make_size_huge(config, tensors):
    config["layers"][2]["config"]["out_features"] = 10**12


def change_dtype(config, tensors):
    tensors["2.weight"] = tensors["2.weight"].astype(np.float64)


def drop_tensor(config, tensors):
    del tensors["2.bias"]


def add_tensor(config, tensors):
    tensors["3.bias"] = np.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_size, r"layers\[2\]: weight: expected shape \(None, 4\)"),
        (drop_bias, r"layers\[2\]: config: expected"),
        (drop_hidden_size, r"layers\[0\]: .*hidden_size"),
        (change_kind, r"layers\[2\]: expected one of LSTM, Linear, Last.*, got 'Conv'"),
        (change_kind_to_a_list, r"layers\[2\]: expected one of .* got \[\]"),
        (change_arguments, r"layers\[2\]: expected a config by names"),
        (change_layer, r"layers\[2\]: expected a kind and a config, got 'Linear'"),
        (change_layers, "config: expected a list of layers"),
        (change_keys, "config: expected a list of layers"),
        (add_argument, r"layers\[2\]: .*scale"),
        (change_size, r"layers\[2\]: weight: expected shape \(2, 4\)"),
        (make_size_huge, r"layers\[2\]: weight: expected shape"),
        (make_embedding_huge, r"layers\[2\]: weight: expected shape"),
        (change_dtype, r"layers\[2\]: weight: expected float32, got float64"),
        (drop_tensor, r"layers\[2\]: state: missing \['bias'\]"),
        (add_tensor, "'3.bias': expected the parameters of its layers alone"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(model, tmp_path, change, message):
    path = tmp_path / "model"
    model.save(path)
    tensors, metadata = read(path)
    kind, config = check_model(path, metadata)
    change(config, tensors)
    write_model(path, kind, config, tensors)
    with pytest.raises(ValueError, match=message) as caught:
        cylstm.load(path)
    assert str(caught.value).startswith(f"{path}: ")
