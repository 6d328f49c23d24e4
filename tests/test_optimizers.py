"""Clipping, optimizers and schedules, beside PyTorch's own and beside twins in NumPy."""

import numpy as np
import pytest

import cylstm
from cylstm.train import (
    SGD,
    Adam,
    AdamW,
    Cosine,
    Embedding,
    Exponential,
    Last,
    Linear,
    LinearDecay,
    Optimizer,
    Plateau,
    RMSprop,
    RowGradient,
    Sequential,
    clip_grad_norm,
    clip_grad_value,
    mse_loss,
)
from threads import threads_as_before

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


@pytest.mark.parametrize("max_value", [0.1, 1.0, 100.0])
def test_clipping_by_value_is_pytorchs(rng, dtype, max_value):
    torch = pytest.importorskip("torch")
    gradient = rng.normal(size=(30, 4)).astype(dtype)
    parameter = torch.nn.Parameter(torch.zeros(30, 4, dtype=getattr(torch, dtype)))
    parameter.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_value_([parameter], max_value)
    clip_grad_value({"a": gradient}, max_value)
    np.testing.assert_array_equal(gradient, parameter.grad.numpy())


def test_a_sparse_gradient_is_clipped_as_a_dense_one(rng):
    values = rng.normal(size=(2, 3))
    sparse = {"a": RowGradient(np.array([1, 4]), values.copy(), (6, 3)), "b": np.ones(2)}
    dense = {"a": sparse["a"].dense(), "b": np.ones(2)}
    assert clip_grad_norm(sparse, 0.5) == pytest.approx(clip_grad_norm(dense, 0.5), rel=1e-15)
    np.testing.assert_allclose(sparse["a"].dense(), dense["a"], rtol=1e-15)
    clip_grad_value(sparse, 0.1)
    clip_grad_value(dense, 0.1)
    np.testing.assert_allclose(sparse["a"].dense(), dense["a"], rtol=1e-15)


@pytest.mark.parametrize("size", [*range(20), 1000])
def test_the_norm_of_every_size(rng, dtype, size):
    gradient = rng.normal(size=(size, 2)).astype(dtype)
    for given in (gradient, gradient[:, 0], gradient.T):
        expected = np.linalg.norm(given.astype(np.float64))
        assert clip_grad_norm({"a": given}, np.inf) == pytest.approx(expected, rel=1e-14)


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
    with pytest.raises(ValueError, match="max_value: expected a positive number, got"):
        clip_grad_value({}, max_norm)


# Optimizers -------------------------------------------------------------------------------------


# name: (ours, its arguments, PyTorch's name of it, its arguments)
OPTIMIZERS = {
    "sgd": (SGD, {}, "SGD", {}),
    "sgd, momentum": (SGD, {"momentum": 0.9, "weight_decay": 0.1}, "SGD", {}),
    "sgd, nesterov": (SGD, {"momentum": 0.8, "nesterov": True}, "SGD", {}),
    "adam": (Adam, {"betas": (0.8, 0.99), "eps": 1e-7}, "Adam", {}),
    "adam, decay": (Adam, {"weight_decay": 0.1}, "Adam", {}),
    "adamw": (AdamW, {"weight_decay": 0.1}, "AdamW", {}),
    "rmsprop": (RMSprop, {"alpha": 0.9}, "RMSprop", {}),
    "rmsprop, momentum": (RMSprop, {"momentum": 0.5, "weight_decay": 0.1}, "RMSprop", {}),
}


def twin(optimizer, parameter, gradient, slots, lr, step, arguments):
    """One step by the formulas of the papers, in NumPy; returns the new parameter."""
    decay = arguments.get("weight_decay", 1e-2 if optimizer is AdamW else 0)
    eps, momentum = arguments.get("eps", 1e-8), arguments.get("momentum", 0)
    if optimizer is AdamW:
        parameter = parameter - lr * decay * parameter
    else:
        gradient = gradient + decay * parameter
    if optimizer is SGD:
        slots["v"] = momentum * slots.get("v", 0) + gradient
        ahead = gradient + momentum * slots["v"] if arguments.get("nesterov") else slots["v"]
        return parameter - lr * ahead
    if optimizer is RMSprop:
        alpha = arguments.get("alpha", 0.99)
        slots["s"] = alpha * slots.get("s", 0) + (1 - alpha) * gradient**2
        slots["v"] = momentum * slots.get("v", 0) + gradient / (np.sqrt(slots["s"]) + eps)
        return parameter - lr * slots["v"]
    beta1, beta2 = arguments.get("betas", (0.9, 0.999))
    slots["m"] = beta1 * slots.get("m", 0) + (1 - beta1) * gradient
    slots["s"] = beta2 * slots.get("s", 0) + (1 - beta2) * gradient**2
    mean, square = slots["m"] / (1 - beta1**step), slots["s"] / (1 - beta2**step)
    return parameter - lr * mean / (np.sqrt(square) + eps)


def rate(step):
    return 1e-2 / (1 + step / 50)


@pytest.fixture(params=OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def kind(request):
    return request.param


def test_200_steps_beside_a_twin_in_float64(kind, rng, dtype):
    """Random gradients, as long as no vector is: 37 x 5 weights and 37 biases."""
    make, arguments, _, _ = kind
    model = Linear(5, 37, dtype=dtype, seed=1)
    optimizer = make(model, **arguments)
    expected = {name: p.astype(np.float64) for name, p in model.state_dict().items()}
    slots = {name: {} for name in expected}
    for step in range(200):
        grads = {name: rng.normal(size=p.shape).astype(dtype) for name, p in expected.items()}
        optimizer.lr = rate(step)
        for name, gradient in grads.items():
            expected[name] = twin(
                make, expected[name], gradient.astype(np.float64), slots[name], rate(step),
                step + 1, arguments,
            )  # fmt: skip
        optimizer.step(grads)
    tolerance = {"float32": 2e-5, "float64": 1e-13}[dtype]
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        np.testing.assert_allclose(parameter, expected[name], rtol=tolerance, atol=tolerance)


def test_200_steps_beside_pytorchs(kind, rng):
    torch = pytest.importorskip("torch")
    make, arguments, theirs_name, _ = kind
    ours = Linear(5, 4, dtype="float64", seed=1)
    theirs = torch.nn.Linear(5, 4).double()
    theirs.load_state_dict({name: torch.tensor(p) for name, p in ours.state_dict().items()})
    our_optimizer = make(ours, lr=rate(0), **arguments)
    their_optimizer = getattr(torch.optim, theirs_name)(
        theirs.parameters(), lr=rate(0), **arguments
    )
    for step in range(200):
        our_optimizer.lr = their_optimizer.param_groups[0]["lr"] = rate(step)
        x, target = rng.normal(size=(7, 5)), rng.normal(size=(7, 4))
        prediction, tape = ours.forward(x)
        our_optimizer.step(ours.backward(tape, mse_loss(prediction, target)[1])[1])
        their_optimizer.zero_grad()
        torch.nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(target)).backward()
        their_optimizer.step()
    for name, parameter in ours.named_parameters():
        expected = theirs.state_dict()[name].numpy()
        np.testing.assert_allclose(parameter, expected, rtol=1e-12, atol=1e-13)


def test_rows_of_a_sparse_gradient_alone_are_updated(kind, rng):
    """Each row steps when it takes part, as a parameter of its own that knows the common step."""
    make, arguments, _, _ = kind
    model = Embedding(6, 3, dtype="float64", seed=1)
    optimizer = make(model, lr=1e-2, **arguments)
    expected = model.state_dict()["weight"]
    slots = [{} for _ in expected]
    for step in range(1, 101):
        rows = np.flatnonzero(rng.random(6) < 0.4)
        values = rng.normal(size=(len(rows), 3))
        optimizer.step({"weight": RowGradient(rows, values, (6, 3))})
        for row, value in zip(rows, values, strict=True):
            expected[row] = twin(make, expected[row], value, slots[row], 1e-2, step, arguments)
    np.testing.assert_allclose(model.state_dict()["weight"], expected, rtol=1e-12)


@pytest.mark.parametrize(("make", "theirs"), [(Adam, "SparseAdam"), (SGD, "SGD")])
def test_sparse_steps_are_pytorchs(rng, make, theirs):
    torch = pytest.importorskip("torch")
    ours = Embedding(9, 4, dtype="float64", seed=1)
    embedding = torch.nn.Embedding(9, 4, sparse=True, dtype=torch.float64)
    embedding.load_state_dict({"weight": torch.tensor(ours.state_dict()["weight"])})
    # Adam's eps, which theirs adds before the correction of the bias, counts for nothing here.
    arguments = {"lr": 1e-2} | ({"eps": 1e-30} if make is Adam else {})
    our_optimizer = make(ours, **arguments)
    their_optimizer = getattr(torch.optim, theirs)(embedding.parameters(), **arguments)
    for _ in range(200):
        x, factor = rng.integers(9, size=(2, 3)), rng.normal(size=(2, 3, 4))
        _, tape = ours.forward(x)
        our_optimizer.step(ours.backward(tape, factor)[1])
        their_optimizer.zero_grad()
        (embedding(torch.tensor(x)) * torch.tensor(factor)).sum().backward()
        their_optimizer.step()
    expected = embedding.weight.detach().numpy()
    np.testing.assert_allclose(ours.state_dict()["weight"], expected, rtol=1e-11, atol=1e-13)


def test_a_bidirectional_ragged_model_trains_as_pytorchs(rng):
    """Ten steps of Adam in float64, two layers in both directions: every parameter to 1e-10."""
    torch = pytest.importorskip("torch")
    lengths = np.array([7, 3, 5, 1, 7])
    ours = Sequential(
        cylstm.LSTM(4, 6, num_layers=2, bidirectional=True, dtype="float64", seed=1),
        Last(),
        Linear(12, 3, dtype="float64", seed=2),
    )
    lstm = torch.nn.LSTM(4, 6, num_layers=2, bidirectional=True).double()
    linear = torch.nn.Linear(12, 3).double()
    lstm.load_state_dict({n: torch.tensor(p) for n, p in ours[0].state_dict(torch=True).items()})
    linear.load_state_dict({n: torch.tensor(p) for n, p in ours[2].state_dict().items()})
    for name, parameter in lstm.named_parameters():
        parameter.requires_grad_(not name.startswith("bias_hh"))  # ours has one bias
    learning = [p for p in [*lstm.parameters(), *linear.parameters()] if p.requires_grad]
    our_optimizer, their_optimizer = Adam(ours, lr=1e-2), torch.optim.Adam(learning, lr=1e-2)
    pack = torch.nn.utils.rnn.pack_padded_sequence
    for _ in range(10):
        x, target = rng.normal(size=(7, 5, 4)), rng.normal(size=(5, 3))
        prediction, tape = ours.forward(x, lengths=lengths)
        our_optimizer.step(ours.backward(tape, mse_loss(prediction, target)[1])[1])
        their_optimizer.zero_grad()
        packed = pack(torch.tensor(x), torch.tensor(lengths), enforce_sorted=False)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(packed)[0])
        last = y[torch.tensor(lengths) - 1, torch.arange(5)]
        torch.nn.functional.mse_loss(linear(last), torch.tensor(target)).backward()
        their_optimizer.step()
    for name, parameter in ours[0].state_dict(torch=True).items():
        if not name.startswith("bias_hh"):
            expected = lstm.state_dict()[name].numpy()
            np.testing.assert_allclose(parameter, expected, rtol=0, atol=1e-10)
    for name, parameter in ours[2].named_parameters():
        expected = linear.state_dict()[name].numpy()
        np.testing.assert_allclose(parameter, expected, rtol=0, atol=1e-10)


def test_an_optimizer_goes_on_from_its_state(kind, rng):
    make, arguments, _, _ = kind
    first, second = (Linear(3, 2, seed=1) for _ in range(2))
    grads = [{"weight": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)} for _ in range(6)]
    whole, before = make(first, **arguments), make(second, **arguments)
    for gradient in grads:
        whole.step(gradient)
    for gradient in grads[:3]:
        before.step(gradient)
    after = make(second, **arguments)
    after.load_state_dict(before.state_dict(), before.steps)
    for gradient in grads[3:]:
        after.step(gradient)
    for name, parameter in first.named_parameters():
        np.testing.assert_array_equal(parameter, second.state_dict()[name])


def test_a_state_that_does_not_fit_changes_nothing():
    optimizer = Adam(Linear(3, 2))
    state = optimizer.state_dict()
    with pytest.raises(KeyError, match=r"state: missing \['mean.bias'\], unexpected \[\]"):
        optimizer.load_state_dict({n: a for n, a in state.items() if n != "mean.bias"}, 3)
    with pytest.raises(ValueError, match=r"square.bias: expected shape \(2,\), got \(3,\)"):
        optimizer.load_state_dict(state | {"square.bias": np.zeros(3)}, 3)
    assert optimizer.steps == 0


def test_a_step_takes_no_memory_as_large_as_a_parameter():
    import tracemalloc

    model = Linear(1000, 500)
    size = model.state_dict()["weight"].nbytes
    grads = {name: np.ones_like(p) for name, p in model.named_parameters()}
    for make in (SGD, Adam, AdamW, RMSprop):
        optimizer = make(model)
        optimizer.step(grads)
        tracemalloc.start()
        optimizer.step(grads)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.02 * size


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
    ("make", "arguments", "message"),
    [
        (SGD, {"momentum": 1}, "momentum: expected a number from 0 and below 1, got 1"),
        (SGD, {"nesterov": True}, "nesterov: expected momentum above 0 beside it"),
        (SGD, {"weight_decay": -1}, "weight_decay: expected a number from 0"),
        (RMSprop, {"alpha": 1.0}, "alpha: expected a number from 0 and below 1"),
        (AdamW, {"weight_decay": np.inf}, "weight_decay: .* got inf"),
        (Adam, {"lr": -1}, "lr: expected a number from 0"),
        (Adam, {"lr": np.nan}, "lr: .* got nan"),
        (Adam, {"lr": np.inf}, "lr: .* got inf"),
        (Adam, {"lr": "fast"}, "lr: .* got 'fast'"),
        (Adam, {"betas": (0.9,)}, "betas: expected two numbers"),
        (Adam, {"betas": (0.9, 1.0)}, r"betas\[1\]: expected a number from 0 and below 1, got 1.0"),
        (Adam, {"eps": -1e-8}, "eps: .* got -1e-08"),
    ],
)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(Linear(1, 1), **arguments)


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


def test_a_refused_step_leaves_tapes_as_good_as_they_were():
    lstm = cylstm.LSTM(2, 3, seed=0)
    y, _, tape = lstm.forward(np.ones((4, 1, 2), np.float32))
    with pytest.raises(KeyError):
        SGD(lstm).step({})
    assert lstm.backward(tape, y)[2]
    SGD(lstm).step(lstm.backward(tape, y)[2])
    with pytest.raises(ValueError, match="tape"):
        lstm.backward(tape, y)


# Schedules ----------------------------------------------------------------------------------------


def pytorchs_rates(make, steps, losses=None):
    """The learning rates of a schedule of PyTorch's, step by step."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule, rates = make(torch.optim.lr_scheduler, optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*(() if losses is None else (losses[step],)))
    return rates


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Exponential(0.1, 0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
        (Exponential(0.1, 0.5, every=7), lambda s, o: s.StepLR(o, 7, 0.5)),
        (Cosine(0.1, 40, final=0.01), lambda s, o: s.CosineAnnealingLR(o, 40, 0.01)),
        (LinearDecay(0.1, 40, final=0.02), lambda s, o: s.LinearLR(o, 1.0, 0.2, 40)),
        (
            Cosine(0.1, 40, warmup=5),
            lambda s, o: s.SequentialLR(
                o, [s.LinearLR(o, 0.2, 1.0, 4), s.CosineAnnealingLR(o, 35)], [5]
            ),
        ),
        (
            LinearDecay(0.1, 40, warmup=5),
            lambda s, o: s.SequentialLR(
                o, [s.LinearLR(o, 0.2, 1.0, 4), s.LinearLR(o, 1.0, 0.0, 35)], [5]
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_schedules_are_pytorchs(ours, theirs):
    expected = pytorchs_rates(theirs, 40)
    np.testing.assert_allclose([ours(step) for step in range(40)], expected, rtol=1e-12)
    assert ours(40) == ours(1000) or isinstance(ours, Exponential)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_a_plateau_is_pytorchs(rng, patience):
    losses = list(np.exp(-np.arange(40) / 10) + 0.2 * rng.random(40))
    expected = pytorchs_rates(
        lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=patience, eps=0), 40, losses
    )
    ours = Plateau(0.1, factor=0.5, patience=patience)
    actual = [ours(epoch, losses[:epoch]) for epoch in range(40)]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert len(set(actual)) > 1


@pytest.mark.parametrize("rows", [False, True], ids=["dense", "rows"])
@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW, RMSprop])
def test_updates_do_not_depend_on_threads(dtype, optimizer, rows):
    found = []
    with threads_as_before():
        for threads in (1, 2, 5):
            cylstm.set_num_threads(threads)
            model = Embedding(3000, 50, dtype=dtype, seed=0)
            gradient = np.random.default_rng(0).standard_normal((3000, 50)).astype(dtype)
            if rows:
                which = np.arange(0, 3000, 2)
                gradient = RowGradient(which, gradient[which], (3000, 50))
            norm = clip_grad_norm({"weight": gradient}, 5.0)
            optimizer(model, 0.1).step({"weight": gradient})
            found.append((norm, model.state_dict()["weight"]))
    for norm, weight in found[1:]:
        assert norm == found[0][0]
        np.testing.assert_array_equal(weight, found[0][1])
