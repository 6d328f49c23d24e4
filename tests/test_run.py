"""What a training run refuses before its first batch, and what it makes of NaN."""

import copy
import json
import os
import warnings

import numpy as np
import pytest

import cylstm
from cylstm.io.safetensors import read, write
from cylstm.train import (
    SGD,
    Adam,
    Batch,
    Cosine,
    Diverged,
    Exponential,
    History,
    Last,
    Layer,
    Linear,
    LinearDecay,
    Plateau,
    Sequential,
    evaluate,
    fit,
    mse_loss,
)

NAN, INF = float("nan"), float("inf")
X = np.linspace(-1, 1, 8)[:, None]
DATA = X, 3 * X


def linear():
    return Linear(1, 1, dtype="float64", seed=0)


def numbers(model):
    return {name: parameter.copy() for name, parameter in model.named_parameters()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


# Losses that are not finite ----------------------------------------------------------------------


def judged_as(*losses):
    """A loss that is right in training, and of these values, one after the other, in validation."""
    left, training = iter(losses), len(X)

    def loss(prediction, target):
        value, gradient = mse_loss(prediction, target)
        return (value if len(target) == training else next(left)), gradient

    return loss


def train(losses, model=None, **arguments):
    model = linear() if model is None else model
    validation = X[:1], X[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return model, fit(
            model, DATA, judged_as(*losses), SGD(model, 1e-2), epochs=len(losses), seed=0,
            validation=validation, **arguments,
        )  # fmt: skip


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [0, 2])
def test_what_is_not_finite_is_never_the_best(bad, at):
    losses = [3.0, 1.0, 2.0, 2.0]
    losses[at] = bad
    after_two, _ = train([1.0, 1.0])
    model, history = train(losses, patience=9)
    assert history.best_epoch == 1
    assert_same(numbers(model), numbers(after_two))


def test_the_best_epoch_of_a_history():
    assert History(loss=[NAN, 2.0, INF, 1.0, NAN]).best_epoch == 3
    assert History(loss=[1.0, 2.0], validation=[NAN, -INF]).best_epoch is None
    assert History().best_epoch is None


def test_patience_counts_epochs_that_are_not_finite():
    _, history = train([NAN, 2.0, NAN, INF, 1.0, 1.0], patience=2)
    assert history.stopped
    assert len(history.loss) == 4


@pytest.mark.parametrize(("patience", "epochs"), [(0, 1), (2, 2), (9, 3)])
def test_a_validation_that_is_never_finite_says_so(patience, epochs):
    model = linear()
    after, _ = train([1.0] * epochs)
    with pytest.raises(
        Diverged, match=f"validation: expected a finite loss .* got nan after the last of {epochs}"
    ):
        train([NAN] * 3, model, patience=patience)
    assert_same(numbers(model), numbers(after))


def test_the_first_loss_that_is_not_finite_warns():
    model = linear()
    with pytest.warns(RuntimeWarning, match="validation: .* got nan after epoch 2;") as caught:
        fit(model, DATA, judged_as(1.0, NAN, NAN), SGD(model), epochs=3, validation=(X[:1], X[:1]))
    assert [warning.filename for warning in caught] == [__file__]


def test_data_of_nan_in_validation():
    model, bad = linear(), np.full((4, 1), NAN)
    with pytest.warns(RuntimeWarning, match="validation"):
        history = fit(model, DATA, mse_loss, SGD(model), epochs=2, validation=(X[:4], bad))
    assert np.isnan(history.validation).all()


def test_a_plateau_takes_nothing_that_is_not_finite_for_better():
    schedule = Plateau(1.0, factor=0.5, patience=1)
    assert schedule(0, [NAN, NAN]) == 0.5
    assert schedule(0, [2.0, -INF, 1.0, 1.0]) == 1.0
    assert schedule(0, [2.0, INF, NAN]) == 0.5


# What a checkpoint can hold ----------------------------------------------------------------------


def plain_loss(prediction, target):
    value, gradient = mse_loss(prediction, target)
    return np.float32(value), gradient


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss": plain_loss},
        {"loss": lambda *given: (np.array(1.0), mse_loss(*given)[1])},
        {"batch_size": np.int64(3)},
        {"epochs": np.int32(3), "patience": np.int8(1), "validation": (X, X)},
        {"clip_norm": INF, "clip_value": np.float32(9)},
        {"schedule": Exponential(np.float32(1e-2), np.float64(0.5), np.int64(2))},
        {"schedule": lambda step, losses: np.float32(1e-3)},
        {"seed": np.uint16(3), "segment": np.int64(2), "steps_per_epoch": np.int64(1)},
    ],
)
def test_numpys_numbers_are_written(tmp_path, arguments):
    settings = {"loss": mse_loss, "epochs": 3, "seed": 0, "batch_size": 4} | arguments
    loss = settings.pop("loss")

    def run(**more):
        model = linear()
        history = fit(model, DATA, loss, Adam(model), **settings | more)
        return numbers(model), history

    expected, history = run()
    run(epochs=1, checkpoint=tmp_path / "run")
    resumed, again = run(checkpoint=tmp_path / "run")
    assert_same(resumed, expected)
    assert again == history
    assert all(type(loss) is float for loss in history.loss + history.lr + history.grad_norm)


def test_losses_that_are_not_finite_are_written(tmp_path):
    path = tmp_path / "run"
    expected, history = train([NAN, 2.0, INF, -INF, 1.0, 1.5], patience=5)
    train([NAN, 2.0, INF], patience=5, checkpoint=path)
    model = linear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        resumed = fit(
            model, DATA, judged_as(-INF, 1.0, 1.5), SGD(model, 1e-2), epochs=6, seed=0,
            validation=(X[:1], X[:1]), patience=5, checkpoint=path,
        )  # fmt: skip
    np.testing.assert_array_equal(resumed.validation, history.validation)
    assert resumed.loss == history.loss
    assert_same(numbers(model), numbers(expected))


class Never:
    """Batches that are not to be asked for."""

    def __iter__(self):
        raise AssertionError("a batch was asked for")


class Odd(Layer):
    """A layer of which JSON cannot hold the configuration."""

    def __init__(self, config):
        self._config = config

    @property
    def config(self):
        return self._config

    def forward(self, x):
        return x, None

    def backward(self, tape, grad_y):
        return grad_y, {}


def refused(error, message, path, model=None, optimizer=None, **arguments):
    model = linear() if model is None else model
    before = numbers(model)
    optimizer = SGD(model) if optimizer is None else optimizer
    with pytest.raises(error, match=message):
        fit(model, Never(), mse_loss, optimizer, epochs=1, checkpoint=path, **arguments)
    assert_same(numbers(model), before)


def test_a_path_that_cannot_be_written_is_seen_before_the_first_batch(tmp_path):
    refused(FileNotFoundError, "missing", tmp_path / "missing" / "run")
    refused(IsADirectoryError, "checkpoint: expected a plain file, got a dir", tmp_path)
    (tmp_path / "file").touch()
    refused(NotADirectoryError, "file", tmp_path / "file" / "run")
    refused(ValueError, "checkpoint: expected the name of a file, got ''", "")
    refused(TypeError, "checkpoint: expected the name of a file, got 5", 5)
    os.mkfifo(tmp_path / "pipe")
    refused(OSError, "checkpoint: expected a plain file, got a FIFO", tmp_path / "pipe")
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]


@pytest.mark.parametrize("config", [{"a": np.ones(2)}, {"a": {1, 2}}, {"a": np.int64(3)}])
def test_a_configuration_that_json_cannot_hold_is_seen_before_the_first_batch(tmp_path, config):
    class Own(SGD):
        config = None

    path = tmp_path / "run"
    refused(
        TypeError,
        "checkpoint: expected a model of which JSON",
        path,
        Sequential(linear(), Odd(config)),
    )
    model = linear()
    optimizer = Own(model)
    Own.config = config
    refused(TypeError, "checkpoint: expected an optimizer of which", path, model, optimizer)
    assert os.listdir(tmp_path) == []


# An optimizer of another model -------------------------------------------------------------------


def whole_model():
    return Sequential(cylstm.LSTM(1, 2, seed=0), Last(), Linear(2, 1, seed=0))


@pytest.mark.parametrize("make", [whole_model, linear, lambda: cylstm.LSTM(1, 1, seed=0)])
def test_an_optimizer_of_another_model_is_refused(make):
    model = make()
    optimizer = Adam(model)
    for other in make(), copy.deepcopy(model), Linear(3, 4):
        with pytest.raises(ValueError, match=r"optimizer: expected one made for this .* Adam\(mod"):
            fit(other, Never(), mse_loss, optimizer, epochs=1)


def test_a_model_loaded_since_is_another(tmp_path):
    model = whole_model()
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="optimizer: expected one made for this model"):
        fit(cylstm.load(tmp_path / "model"), Never(), mse_loss, Adam(model), epochs=1)


def test_the_same_parameters_are_the_same_model():
    """An LSTM is wrapped in a model, and layers may stand in two."""
    x = np.ones((2, 3, 1), np.float32)
    lstm, head = cylstm.LSTM(1, 1, seed=0), Linear(1, 1, seed=0)
    for optimizer, model in (
        (Adam(lstm), lstm),
        (Adam(Sequential(lstm, head)), Sequential(lstm, head)),
        (Adam(Sequential(Odd({}), head)), Sequential(Odd({}), head)),
    ):
        before = numbers(model)
        lstm.load_state_dict(lstm.state_dict())  # in place
        fit(model, (x, x + 1), mse_loss, optimizer, epochs=1)
        assert any((before[name] != p).any() for name, p in model.named_parameters())


# Damaged checkpoints -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The tensors and the metadata of a checkpoint with everything in it."""
    path = tmp_path_factory.mktemp("made") / "run"
    _, history = train([2.0, 1.0, 3.0], patience=5, checkpoint=path)
    assert history.best_epoch == 1
    return read(path)


def without(name):
    return lambda run, tensors: run.pop(name)


def changed(*names, to):
    def change(run, tensors):
        for name in names[:-1]:
            run = run[name]
        run[names[-1]] = to

    return change


def renamed(name, to):
    def change(run, tensors):
        tensors[to] = tensors.pop(name)

    return change


def of_tensor(name, make):
    def change(run, tensors):
        tensors[name] = make(tensors[name])

    return change


RUN = ("settings", "batch", "taken", "mean", "largest_norm", "history", "optimizer_steps", "lr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((without(name), f"expected '{name}'") for name in (*RUN, "carried")),
        *((changed(name, to="x"), f"{name}: expected") for name in (*RUN, "carried")),
        *((changed(name, to=[1.5, None]), f"{name}: expected") for name in (*RUN, "carried")),
        (changed("batch", to=-1), "batch: expected an integer from 0, got -1"),
        (changed("batch", to=True), "batch: expected an integer from 0, got True"),
        (changed("taken", to=2**63), "taken: expected an integer from 0"),
        (changed("optimizer_steps", to=2**31), "optimizer_steps: expected an integer from 0 to 2"),
        (changed("lr", to=-1.0), "lr: expected a finite number from 0"),
        (changed("lr", to=NAN), "lr: expected a finite number from 0"),
        (changed("mean", to={"total": 0.0}), "mean: expected 'weight', got none"),
        (changed("mean", "more", to=1), "mean: expected total, weight alone, got 'more'"),
        (changed("more", to=1), "run: expected settings, .* alone, got 'more'"),
        (changed("history", "loss", to=None), "loss: expected numbers, got None"),
        (changed("history", "loss", to=[1.0]), "validation: expected 1 numbers, got 3"),
        (changed("history", "lr", to=[1.0]), "lr: expected 3 numbers, got 1"),
        (changed("history", "loss", to=["a"] * 3), "loss: expected numbers, got"),
        (changed("history", "stopped", to=1), "stopped: expected true or false, got 1"),
        (changed("history", "validation", to=[]), "another validation: expected True, got False"),
        (changed("settings", to={}), "settings: expected settings with a seed"),
        (changed("settings", "seed", to=1), "another seed: expected 0, got 1"),
        (changed("carried", to="model.none"), "carried: expected the name of a tensor"),
        (renamed("model.weight", "model.w"), "model.'weight': expected float64 of shape .* none"),
        (renamed("model.weight", "other.w"), "'other.w': expected tensors of model, opt"),
        (renamed("best.weight", "optimizer.weight"), "optimizer.'weight': expected none"),
        (of_tensor("model.bias", lambda t: t[:0]), r"model.'bias': expected .* of shape \(0,\)"),
        (of_tensor("best.bias", np.float32), "best.'bias': expected float64 .* got float32"),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_says_what_was_expected(tmp_path, made, change, message):
    path = tmp_path / "run"
    tensors, metadata = dict(made[0]), dict(made[1])
    run = json.loads(metadata["run"])
    change(run, tensors)
    write(path, tensors, metadata | {"run": json.dumps(run)})
    model = linear()
    optimizer, before = SGD(model, 1e-2), numbers(model)
    with pytest.raises(ValueError, match=message) as caught:
        fit(
            model, Never(), mse_loss, optimizer, epochs=9, seed=0, validation=Never(), patience=5,
            checkpoint=path,
        )  # fmt: skip
    assert str(path) in str(caught.value)
    assert_same(numbers(model), before)
    assert (optimizer.steps, optimizer.lr) == (0, 1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_tensor("carried.0.0", lambda t: t[..., :1]), "h_0: expected shape .* got"),
        (of_tensor("carried.0.1", np.float32), "c_0: expected dtype float64, got float32"),
        (changed("carried", to=[[]]), "carried: .*expected a pair"),
        (changed("carried", to=["carried.0.0"]), "carried: .*expected a pair"),
        (changed("carried", to=["carried.0.0"] * 2), "state: expected a list, one for each of 1"),
    ],
)
def test_a_carried_state_that_does_not_fit(tmp_path, change, message):
    """Found out at the first batch, and yet nothing is changed."""
    path, x = tmp_path / "run", np.ones((2, 3, 1))
    batches = [(x, np.ones((2, 3, 2)))] * 2
    batches = [Batch(*batch, follows=n > 0) for n, batch in enumerate(batches)]

    def make():
        return Sequential(cylstm.LSTM(1, 2, dtype="float64", seed=0))

    class Stop(list):
        def __iter__(self):
            yield batches[0]
            raise KeyboardInterrupt

    model = make()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Stop(), mse_loss, SGD(model), epochs=1, seed=0, checkpoint=path)
    tensors, metadata = read(path)
    run = json.loads(metadata["run"])
    assert run["carried"] == [["carried.0.0", "carried.0.1"]]
    change(run, tensors)
    write(path, tensors, metadata | {"run": json.dumps(run)})
    model = make()
    optimizer, before = SGD(model), numbers(model)
    with pytest.raises(ValueError, match=message) as caught:
        fit(model, batches, mse_loss, optimizer, epochs=1, seed=0, checkpoint=path)
    assert str(path) in str(caught.value)
    assert_same(numbers(model), before)
    assert optimizer.steps == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected the metadata of a run, got none"),
        ("", "the run is not valid JSON"),
        ("[]", "the run must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"lr": 1, "lr": 2}', "a key stands twice"),
        ('{"carried": ' + "[" * 900 + "]" * 900 + "}", "expected 'settings'|nested too deeply"),
    ],
)
def test_a_checkpoint_whose_run_is_no_run(tmp_path, made, text, message):
    path = tmp_path / "run"
    metadata = {name: value for name, value in made[1].items() if name != "run"}
    write(path, made[0], metadata if text is None else metadata | {"run": text})
    refused(ValueError, message, path)


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": 5}, TypeError, "loss: expected a function, got 5"),
        ({"schedule": 5}, TypeError, "schedule: expected a function, got 5"),
        ({"optimizer": Adam}, TypeError, "optimizer: expected an Optimizer, got"),
        ({"optimizer": "adam"}, TypeError, "optimizer: expected an Optimizer, got 'adam'"),
        ({"epochs": True}, TypeError, "epochs: expected an integer, got True"),
        ({"batch_size": 2.0}, TypeError, "batch_size: expected an integer, got 2.0"),
        ({"data": [], "batch_size": 0}, ValueError, "batch_size: expected an integer from 1"),
        ({"loss": lambda *_: 1.0}, TypeError, r"loss: expected it to return \(value, gradient\)"),
        ({"loss": lambda *_: (1j, X)}, TypeError, "loss: expected a number, got 1j"),
        ({"loss": lambda *_: (X, X)}, TypeError, "loss: expected a number, got"),
        ({"loss": lambda *_: (None, X)}, TypeError, "loss: expected a number, got None"),
        ({"loss": lambda *_: (1.0, None)}, TypeError, "grad_y: expected an array, got NoneType"),
        ({"schedule": lambda *_: None}, TypeError, r"schedule\(step, losses\): expected a number"),
        ({"schedule": lambda *_: NAN}, ValueError, r"schedule\(step, losses\): expected a finite"),
        ({"data": [(X.tolist(), X)]}, TypeError, "x: expected an array, got list"),
        ({"data": [(X, X.tolist())]}, TypeError, "target: expected an array, got list"),
        ({"data": [(X, None)]}, TypeError, "target: expected an array, got NoneType"),
        ({"data": [(X, X[:3])]}, ValueError, r"target: expected shape \(8, 1\), got \(3, 1\)"),
        ({"data": [(X[0], X, 3)]}, ValueError, "x: expected sequences side by side, got shape"),
        ({"data": [(X, X, [1.0])]}, TypeError, "lengths: expected integers, got float64"),
        ({"data": [(X, X, [9])]}, ValueError, r"lengths: expected 0 to 8 \(the steps of x\)"),
        ({"validation": 5}, TypeError, "validation: expected a Source.* got int"),
        ({"validation": (X,)}, ValueError, r"validation: expected \(x, target\)"),
        ({"validation": [X]}, TypeError, "validation: expected batches .* got ndarray"),
        ({"validation": []}, ValueError, "validation: expected at least one batch, got none"),
        ({"data": (X, X.tolist())}, TypeError, "target: expected an array, got list"),
    ],
)
def test_bad_arguments(arguments, error, message):
    model = linear()
    given = {"loss": mse_loss, "optimizer": SGD(model), "epochs": 1, "data": DATA} | arguments
    data, loss, optimizer = (given.pop(name) for name in ("data", "loss", "optimizer"))
    with pytest.raises(error, match=message):
        fit(model, data, loss, optimizer, **given)


def test_a_loss_that_is_no_function_judges_nothing():
    with pytest.raises(TypeError, match="loss: expected a function, got 'mse'"):
        evaluate(linear(), DATA, "mse")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Exponential(0.1, 0.5, every=0), ValueError, "every: expected an integer from 1"),
        (lambda: Exponential(-0.1, 0.5), ValueError, "lr: expected a number from 0"),
        (lambda: Exponential(0.1, "0.5"), TypeError, "gamma: expected a number"),
        (lambda: Cosine(0.1, 10.0), TypeError, "steps: expected an integer"),
        (lambda: Cosine(0.1, 10, warmup=-1), ValueError, "warmup: expected an integer from 0"),
        (lambda: LinearDecay(NAN, 10), ValueError, "lr: expected a finite number"),
        (lambda: LinearDecay(0.1, 10, final=-1), ValueError, "final: expected a number from 0"),
        (lambda: Plateau(0.1, factor=INF), ValueError, "factor: expected a finite number"),
        (lambda: Plateau(0.1, patience=1.5), TypeError, "patience: expected an integer"),
        (lambda: Plateau(0.1, threshold=-1), ValueError, "threshold: expected a number from 0"),
    ],
)
def test_a_schedule_checks_what_it_is_made_with(make, error, message):
    with pytest.raises(error, match=message):
        make()
