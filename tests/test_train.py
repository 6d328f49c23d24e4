"""Training: every gradient by central differences, Adam and clipping beside PyTorch's own."""

import pickle

import numpy as np
import pytest

import cylstm
from cylstm.io.safetensors import load_model, save_model
from cylstm.train import Adam, Last, Linear, Optimizer, Sequential, clip_grad_norm, mse_loss

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


def central_differences(function, array, step=1e-6):
    """Return the gradient of a scalar function with respect to an array that it reads."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = function()
        array[index] = value - step
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_gradient(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-8)


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
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-13)


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
            lambda: Linear(3, 1).backward(np.ones((2, 3), "f4"), np.ones((2, 2), "f4")),
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
            lambda: Linear(1, 1).load_state_dict({"weight": [1], "bias": [1]}),
            ValueError,
            r"weight: expected shape \(1, 1\), got \(1,\)",
        ),
    ],
)
def test_bad_input_to_layers(call, error, message):
    with pytest.raises(error, match=message):
        call()


# A Sequential and its file ----------------------------------------------------------------------


@pytest.fixture
def model():
    return Sequential(cylstm.LSTM(2, 4, seed=1), Last(), Linear(4, 3, seed=2))


def test_a_loaded_model_gives_the_same_bits(model, tmp_path, rng):
    model.save(tmp_path / "model")
    loaded = Sequential.load(tmp_path / "model")
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
        (change_dtype, r"layers\[2\]: weight: expected float32, got float64"),
        (drop_tensor, r"layers\[2\]: state: missing \['bias'\]"),
        (add_tensor, "'3.bias': expected the parameters of its layers alone"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(model, tmp_path, change, message):
    path = tmp_path / "model"
    model.save(path)
    kind, config, tensors = load_model(path)
    change(config, tensors)
    save_model(path, kind, config, tensors)
    with pytest.raises(ValueError, match=message) as caught:
        Sequential.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_lstms_file_is_no_sequential(tmp_path):
    save_model(tmp_path / "model", "LSTM", {}, {})
    with pytest.raises(ValueError, match="expected a model of kind Sequential, got LSTM"):
        Sequential.load(tmp_path / "model")


# The loss ---------------------------------------------------------------------------------------


def test_mse_loss_and_its_gradient(rng):
    prediction, target = rng.normal(size=(2, 3, 4, 5))
    loss, gradient = mse_loss(prediction, target)
    assert isinstance(loss, float)
    assert loss == pytest.approx(np.mean((prediction - target) ** 2), rel=1e-14)
    assert_gradient(
        gradient, central_differences(lambda: mse_loss(prediction, target)[0], prediction)
    )


def test_mse_loss_is_summed_in_float64():
    prediction = np.full(10_000_001, 0.1, np.float32)
    loss, gradient = mse_loss(prediction, np.zeros_like(prediction))
    assert loss == pytest.approx(float(np.float32(0.1)) ** 2, rel=1e-7)
    assert gradient.dtype == np.float32


@pytest.mark.parametrize(
    ("prediction", "target", "error", "message"),
    [
        (np.ones((2, 1)), np.ones(2), ValueError, r"target: expected shape \(2, 1\), got \(2,\)"),
        (np.ones(2), 1.0, TypeError, "target: expected an array, got float"),
        (np.ones(2), np.ones(2, "f4"), TypeError, "target: expected dtype float64, got float32"),
        (np.ones((0, 2)), np.ones((0, 2)), ValueError, "prediction: expected at least one element"),
        (np.ones(2, int), np.ones(2), TypeError, "prediction: expected .* got int64"),
    ],
)
def test_bad_input_to_mse_loss(prediction, target, error, message):
    with pytest.raises(error, match=message):
        mse_loss(prediction, target)


# Clipping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [0.1, 3.0, 1e6, np.inf])
def test_clipping_is_pytorchs(rng, dtype, max_norm):
    torch = pytest.importorskip("torch")
    grads = {
        name: rng.normal(size=shape).astype(dtype) for name, shape in [("a", (3, 4)), ("b", 2)]
    }
    parameters = [torch.nn.Parameter(torch.zeros(g.shape)) for g in grads.values()]
    for parameter, gradient in zip(parameters, grads.values(), strict=True):
        parameter.data = parameter.data.to(getattr(torch, dtype))
        parameter.grad = torch.tensor(gradient)
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype]
    assert clip_grad_norm(grads, max_norm) == pytest.approx(expected.item(), rel=tolerance)
    for parameter, gradient in zip(parameters, grads.values(), strict=True):
        np.testing.assert_allclose(gradient, parameter.grad.numpy(), rtol=tolerance)


def test_the_norm_is_summed_in_float64():
    grads = {"a": np.full(10_000_001, 1e-25, np.float32)}  # its squares are zero in float32
    assert clip_grad_norm(grads, 1.0) == pytest.approx(1e-25 * 10_000_001**0.5, rel=1e-6)


def test_gradients_within_the_norm_keep_their_bits():
    grads = {"a": np.array([0.3, 0.1]), "b": np.zeros((0, 2))}
    clip_grad_norm(grads, 1.0)
    np.testing.assert_array_equal(grads["a"], [0.3, 0.1])
    assert clip_grad_norm({}, 1.0) == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_not_finite(value):
    grads = {"a": np.ones(2), "b": np.array([1.0, value])}
    with pytest.raises(ValueError, match="the gradient of b is not finite"):
        clip_grad_norm(grads, 1.0)
    assert not np.isfinite(clip_grad_norm(grads, 1.0, error_if_nonfinite=False))
    np.testing.assert_array_equal(grads["b"], [1.0, value])
    np.testing.assert_array_equal(grads["a"], [1.0, 1.0])


def test_a_norm_that_overflows():
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match="their norm overflows float64"),
    ):
        clip_grad_norm({"a": np.full(2, 1e200)}, 1.0)


@pytest.mark.parametrize("max_norm", [0, -1.0, np.nan, "1", None])
def test_a_bad_max_norm(max_norm):
    with pytest.raises(ValueError, match="max_norm: expected a positive number, got"):
        clip_grad_norm({}, max_norm)


# Optimizers -------------------------------------------------------------------------------------


def test_adam_is_pytorchs_over_200_steps(rng):
    torch = pytest.importorskip("torch")
    arguments = {"lr": 3e-3, "betas": (0.8, 0.99), "eps": 1e-7}
    ours = Linear(5, 4, dtype="float64", seed=1)
    theirs = torch.nn.Linear(5, 4).double()
    theirs.load_state_dict({name: torch.tensor(p) for name, p in ours.state_dict().items()})
    our_optimizer = Adam(ours, **arguments)
    their_optimizer = torch.optim.Adam(theirs.parameters(), **arguments)
    for step in range(200):
        our_optimizer.lr = 3e-3 / (1 + step)
        their_optimizer.param_groups[0]["lr"] = 3e-3 / (1 + step)
        x, target = rng.normal(size=(7, 5)), rng.normal(size=(7, 4))
        prediction, tape = ours.forward(x)
        our_optimizer.step(ours.backward(tape, mse_loss(prediction, target)[1])[1])
        their_optimizer.zero_grad()
        torch.nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(target)).backward()
        their_optimizer.step()
    for name, parameter in ours.named_parameters():
        expected = theirs.state_dict()[name].numpy()
        np.testing.assert_allclose(parameter, expected, rtol=1e-12, atol=1e-13)


def test_adam_trains_a_model_with_an_lstm(rng):
    """The mean of a sequence: an LSTM must carry it to the last step."""
    model = Sequential(cylstm.LSTM(1, 8, seed=1), Last(), Linear(8, 1, seed=2))
    optimizer = Adam(model, lr=1e-2)
    x = rng.normal(size=(10, 64, 1)).astype(np.float32)
    losses = []
    for _ in range(150):
        prediction, tape = model.forward(x)
        loss, gradient = mse_loss(prediction, x.mean(axis=0))
        _, grads = model.backward(tape, gradient)
        clip_grad_norm(grads, 1.0)
        optimizer.step(grads)
        losses.append(loss)
    assert losses[-1] < 0.1 * losses[0]


def test_adam_trains_a_bare_lstm():
    lstm = cylstm.LSTM(2, 3, seed=1)
    before = lstm.state_dict()
    Adam(lstm, lr=0.1).step({name: np.ones_like(p) for name, p in before.items()})
    for name, parameter in lstm.named_parameters():
        np.testing.assert_allclose(parameter, before[name] - 0.1, atol=1e-6)


def test_a_new_optimizer_says_how_one_parameter_changes():
    class Descent(Optimizer):
        def _update(self, parameter, gradient, rows):
            parameter[rows] -= self.lr * gradient

    linear = Linear(2, 1, dtype="float64")
    before = linear.state_dict()
    Descent(linear, lr=0.5).step({"weight": np.ones((1, 2)), "bias": np.ones(1)})
    for name, parameter in linear.named_parameters():
        np.testing.assert_array_equal(parameter, before[name] - 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1}, "lr: expected a number from 0"),
        ({"lr": np.nan}, "lr: .* got nan"),
        ({"lr": np.inf}, "lr: .* got inf"),
        ({"lr": "fast"}, "lr: .* got 'fast'"),
        ({"betas": (0.9,)}, "betas: expected two numbers"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]: expected a number from 0 and below 1, got 1.0"),
        ({"eps": -1e-8}, "eps: .* got -1e-08"),
    ],
)
def test_bad_arguments_of_adam(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adam(Linear(1, 1), **arguments)


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"weight": np.ones((1, 2))}, r"grads: missing \['bias'\], unexpected \[\]"),
        (
            {"weight": np.ones((1, 2)), "bias": np.ones(1), "more": 1},
            r"missing \[\], unexpected \['more'\]",
        ),
        (
            {"weight": np.ones((2, 1)), "bias": np.ones(1)},
            r"grads\['weight'\]: expected shape \(1, 2\), got \(2, 1\)",
        ),
    ],
)
def test_bad_gradients_change_nothing(grads, message):
    linear = Linear(2, 1)
    before = linear.state_dict()
    optimizer = Adam(linear)
    with pytest.raises((KeyError, ValueError), match=message):
        optimizer.step(grads)
    assert optimizer.steps == 0
    for name, parameter in linear.named_parameters():
        np.testing.assert_array_equal(parameter, before[name])
