"""The training loop: what it learns, that a seed gives its bits, and that a kill costs nothing."""

import builtins
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.io.safetensors import read, write
from cylstm.train import (
    SGD,
    Adam,
    Arrays,
    Batch,
    Buckets,
    Cosine,
    Diverged,
    Dropout,
    Embedding,
    Last,
    Linear,
    Sequential,
    Streams,
    cross_entropy_loss,
    evaluate,
    fit,
    mae_loss,
    mse_loss,
)


def small_model():
    """With all that could break the repetition of bits: layers, dropout, a sparse gradient."""
    return Sequential(
        Embedding(5, 3, seed=1),
        Dropout(0.2),
        cylstm.LSTM(3, 6, num_layers=2, dropout=0.3, seed=2),
        Linear(6, 5, seed=3),
    )


def plain_model():
    return Sequential(Embedding(5, 3, seed=1), cylstm.LSTM(3, 6, seed=2), Linear(6, 5, seed=3))


def text(length=201):
    return np.random.default_rng(5).integers(5, size=length)


def streams(steps=7):
    tokens = text()
    return Streams(tokens[:-1], tokens[1:], 4, steps=steps)  # 50 steps side by side: 8 batches


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


# What a step does ---------------------------------------------------------------------------------


def test_fit_is_the_loop_written_by_hand(rng):
    x = rng.normal(size=(6, 10, 2)).astype(np.float32)
    target = rng.normal(size=(10, 1)).astype(np.float32)
    ours, theirs = (
        Sequential(cylstm.LSTM(2, 4, seed=1), Last(), Linear(4, 1, seed=2)) for _ in range(2)
    )
    history = fit(ours, (x, target), mse_loss, Adam(ours), epochs=3, batch_size=4, seed=9)
    adam, losses = Adam(theirs), []
    for epoch in range(3):
        order, total = np.random.default_rng([9, epoch, 0]).permutation(10), 0
        for part in (order[:4], order[4:8], order[8:]):
            prediction, tape = theirs.forward(x[:, part])
            loss, gradient = mse_loss(prediction, target[part])
            adam.step(theirs.backward(tape, gradient)[1])
            total += loss * len(part)
        losses.append(total / 10)
    assert_same(ours.state_dict(), theirs.state_dict())
    np.testing.assert_allclose(history.loss, losses, rtol=1e-14)


def test_the_state_is_carried_from_batch_to_batch():
    model = plain_model()
    whole = evaluate(model, streams(steps=1000), cross_entropy_loss)
    assert evaluate(model, streams(), cross_entropy_loss) == pytest.approx(whole, rel=1e-6)
    forgetful = [batch._replace(follows=False) for batch in streams().epoch(None)]
    assert abs(evaluate(model, forgetful, cross_entropy_loss) - whole) > 1e-4


def test_training_carries_the_state_within_an_epoch_alone():
    model = plain_model()
    history = fit(
        model, streams(), cross_entropy_loss, SGD(model, lr=0), epochs=2, validation=streams()
    )
    np.testing.assert_allclose(history.loss, history.validation, rtol=1e-6)
    assert history.loss[0] == history.loss[1]


def test_an_epoch_begins_without_a_state():
    model = plain_model()
    going_on = [batch._replace(follows=True) for batch in streams().epoch(None)]
    history = fit(model, going_on, cross_entropy_loss, SGD(model, lr=0), epochs=2)
    assert history.loss[0] == history.loss[1]


def test_dropout_differs_from_batch_to_batch_and_epoch_to_epoch():
    seen = []

    def loss(prediction, target):
        seen.append(prediction[0].tolist())
        return mse_loss(prediction, target)

    model, x = Sequential(Dropout(0.5), Linear(30, 1)), np.ones((1, 30), np.float32)
    fit(model, [(x, x[:, :1])] * 3, loss, SGD(model, lr=0), epochs=3, seed=0)
    assert len({tuple(prediction) for prediction in seen}) == 9


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("loss", [mse_loss, mae_loss, cross_entropy_loss])
def test_padding_does_not_count(rng, loss, batch_first):
    """A ragged batch has the loss of its sequences one by one, each weighed by its length."""
    model = Sequential(
        cylstm.LSTM(2, 4, bidirectional=True, batch_first=batch_first, dtype="float64", seed=1),
        Linear(8, 3, dtype="float64", seed=2),
    )
    sequences = [rng.normal(size=(length, 2)) for length in (5, 1, 3, 3)]
    if loss is cross_entropy_loss:
        targets = [rng.integers(3, size=len(x)) for x in sequences]
    else:
        targets = [rng.normal(size=(len(x), 3)) for x in sequences]
    ragged = Buckets(sequences, targets, 4, every_step=True, batch_first=batch_first)
    axis = 0 if batch_first else 1
    alone = [
        Batch(np.expand_dims(x, axis), np.expand_dims(target, axis))
        for x, target in zip(sequences, targets, strict=True)
    ]
    expected = np.average([evaluate(model, [batch], loss) for batch in alone], weights=[5, 1, 3, 3])
    assert evaluate(model, ragged, loss) == pytest.approx(expected, rel=1e-13)
    assert evaluate(model, alone, loss) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("batch_first", [False, True])
def test_pairs_of_arrays_lie_as_the_model_takes_them(rng, batch_first):
    model = Sequential(cylstm.LSTM(2, 4, batch_first=batch_first), Linear(4, 1))
    x, target = rng.normal(size=(10, 7, 2)), rng.normal(size=(10, 7, 1))
    seen = []

    def loss(prediction, target):
        seen.append(prediction.shape)
        return mse_loss(prediction, target)

    data = x.astype(np.float32), target.astype(np.float32)
    evaluate(model, data, loss, batch_size=6)
    assert seen == ([(6, 7, 1), (4, 7, 1)] if batch_first else [(10, 6, 1), (10, 1, 1)])


def test_a_bare_lstm_and_a_bare_layer_train(rng):
    x = rng.normal(size=(5, 20, 2)).astype(np.float32)
    for model, target in ((cylstm.LSTM(2, 3, seed=0), x[..., :1].repeat(3, 2)),
                          (Linear(2, 1, seed=0), x[..., :1])):  # fmt: skip
        history = fit(model, (x, target), mse_loss, Adam(model, 3e-2), epochs=30, seed=0)
        assert history.loss[-1] < 0.7 * history.loss[0]


def test_clipping_is_done_value_first():
    model, x = Linear(1, 1, bias=False, dtype="float64", seed=0), np.ones((1, 1))
    before = model.state_dict()["weight"]
    optimizer = SGD(model, lr=1.0)
    history = fit(model, (x, x + 100), mse_loss, optimizer, epochs=1, clip_value=2.0, clip_norm=0.5)
    assert abs(model.state_dict()["weight"] - before) == pytest.approx(0.5, rel=1e-5)
    assert history.grad_norm == [pytest.approx(abs(2 * (before.item() - 101)))]
    before = model.state_dict()["weight"]
    fit(model, (x, x + 100), mse_loss, optimizer, epochs=1, clip_value=2.0)
    assert abs(model.state_dict()["weight"] - before) == pytest.approx(2.0)


def test_the_schedule_sees_steps_and_losses():
    seen = []

    def schedule(step, losses):
        seen.append((step, len(losses)))
        return 0.1 / (1 + step)

    model = plain_model()
    optimizer = Adam(model)
    history = fit(model, streams(25), cross_entropy_loss, optimizer, epochs=2, schedule=schedule)
    assert seen == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert history.lr == [0.05, 0.025]


# Where batches come from --------------------------------------------------------------------------


def test_an_iterator_goes_on_where_the_epoch_before_ended():
    seen = []

    def endless():
        for n in range(1000):
            seen.append(n)
            yield np.full((1, 1), float(n)), np.zeros((1, 1))

    model = Linear(1, 1, dtype="float64")
    history = fit(model, endless(), mse_loss, SGD(model, lr=0), epochs=3, steps_per_epoch=4)
    assert seen == list(range(12))
    assert len(history.loss) == 3


def test_an_iterator_that_ends_is_an_error():
    model, x = Linear(1, 1, dtype="float64"), np.ones((1, 1))
    with pytest.raises(ValueError, match="expected batches for epoch 2, got none; an iterator"):
        fit(model, iter([(x, x)]), mse_loss, Adam(model), epochs=2)


# Validation and early stopping --------------------------------------------------------------------


def test_patience_ends_with_the_best_model(rng):
    """Targets of noise: what is learnt of them makes the validation worse."""
    x, noise = rng.normal(size=(6, 12, 2)), rng.normal(size=(12, 1))
    model = Sequential(
        cylstm.LSTM(2, 16, dtype="float64", seed=1), Last(), Linear(16, 1, dtype="float64", seed=2)
    )
    other = rng.normal(size=(6, 50, 2)), rng.normal(size=(50, 1))
    history = fit(
        model, (x, noise), mse_loss, Adam(model, 3e-2), epochs=200, validation=other, patience=5,
        seed=0,
    )  # fmt: skip
    assert history.stopped
    assert len(history.loss) == history.best_epoch + 6 < 200
    assert evaluate(model, other, mse_loss) == history.validation[history.best_epoch]
    assert history.validation[-1] > min(history.validation)


def test_a_run_that_ends_before_its_patience_also_gives_the_best(rng):
    x, noise = rng.normal(size=(8, 4)), rng.normal(size=(8, 1))
    model = Linear(4, 1, dtype="float64", seed=1)
    other = rng.normal(size=(9, 4)), rng.normal(size=(9, 1))
    history = fit(
        model, (x, noise), mse_loss, Adam(model, 0.3), epochs=30, validation=other, patience=29
    )
    assert not history.stopped
    assert evaluate(model, other, mse_loss) == min(history.validation) < history.validation[-1]


# The same bits ------------------------------------------------------------------------------------


def run(model=None, epochs=3, **arguments):
    """A run with carried state, dropout, clipping, a schedule, validation; the model, history."""
    model = small_model() if model is None else model
    settings = {"seed": 4, "clip_norm": 1.0, "validation": streams(), "patience": 50}
    settings |= {"schedule": Cosine(1e-2, 24, warmup=4)} | arguments
    history = fit(
        model, settings.pop("data", streams()), cross_entropy_loss, Adam(model), epochs=epochs,
        **settings,
    )  # fmt: skip
    return model, history


def test_a_seed_gives_its_bits():
    (first, first_history), (second, second_history) = run(), run()
    assert_same(first.state_dict(), second.state_dict())
    assert first_history == second_history
    other, _ = run(seed=5)
    assert any((other.state_dict()[n] != p).any() for n, p in first.named_parameters())


class Interrupted(list):
    """Batches among which, once, the user presses Ctrl-C."""

    def __init__(self, source, at):
        super().__init__(source.epoch(None))
        self.at = at

    def __iter__(self):
        for batch in super().__iter__():
            if self.at == 0:
                self.at = -1
                raise KeyboardInterrupt
            self.at -= 1
            yield batch


@settings(max_examples=15)
@given(at=st.integers(0, 23))
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path_factory, at):
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    expected, expected_history = run(data=list(streams().epoch(None)))
    with pytest.raises(KeyboardInterrupt):
        run(data=Interrupted(streams(), at), checkpoint=path)
    model, history = run(data=list(streams().epoch(None)), checkpoint=path)
    assert_same(model.state_dict(), expected.state_dict())
    assert history == expected_history


def test_an_iterator_is_resumed_by_passing_over_what_was_seen(tmp_path):
    def batches():
        rng = np.random.default_rng(3)
        while True:
            yield rng.integers(5, size=(6, 2)), rng.integers(5, size=(6, 2))

    arguments = {"steps_per_epoch": 5, "validation": None, "patience": None}
    expected, history = run(data=batches(), **arguments)
    part = {"checkpoint": tmp_path / "run", "checkpoint_every": 3}
    run(data=batches(), epochs=1, **arguments, **part)
    model, resumed = run(data=batches(), **arguments, **part)
    assert_same(model.state_dict(), expected.state_dict())
    assert resumed == history


def test_what_was_measured_before_the_interruption_counts(tmp_path):
    x = np.ones((1, 1))
    batches = [(x, 100 * x), (x, x), (x, x)]

    class Stop(list):
        def __iter__(self):
            yield from batches[:2]
            raise KeyboardInterrupt

    def train(data, **arguments):
        model = Linear(1, 1, dtype="float64", seed=0)
        return fit(model, data, mse_loss, SGD(model, 0.1), epochs=1, seed=0, **arguments)

    with pytest.raises(KeyboardInterrupt):
        train(Stop(), checkpoint=tmp_path / "run")
    assert train(batches, checkpoint=tmp_path / "run") == train(batches)


def test_the_best_model_outlives_the_interruption(tmp_path):
    """The best epoch was before the interruption, and none after it is better."""

    def train(epochs, **arguments):
        rng = np.random.default_rng(8)
        x, noise = rng.normal(size=(8, 4)), rng.normal(size=(8, 1))
        other = rng.normal(size=(9, 4)), rng.normal(size=(9, 1))
        model = Linear(4, 1, dtype="float64", seed=1)
        history = fit(
            model, (x, noise), mse_loss, Adam(model, 0.3), epochs=epochs, validation=other,
            patience=40, seed=0, **arguments,
        )  # fmt: skip
        return model, history

    expected, history = train(30)
    assert history.best_epoch < 20
    train(20, checkpoint=tmp_path / "run")
    model, resumed = train(30, checkpoint=tmp_path / "run")
    assert resumed == history
    assert_same(model.state_dict(), expected.state_dict())


def test_more_epochs_continue_a_finished_run(tmp_path):
    expected, history = run(epochs=4)
    run(epochs=2, checkpoint=tmp_path / "run")
    model, resumed = run(epochs=4, checkpoint=tmp_path / "run")
    assert_same(model.state_dict(), expected.state_dict())
    assert resumed == history
    again, _ = run(epochs=4, checkpoint=tmp_path / "run")
    assert_same(again.state_dict(), expected.state_dict())


def test_a_seed_that_was_drawn_is_kept(tmp_path):
    _, first = run(epochs=1, seed=None, checkpoint=tmp_path / "run")
    _, resumed = run(epochs=2, seed=None, checkpoint=tmp_path / "run")
    assert resumed.loss[:1] == first.loss


@pytest.mark.parametrize("arguments", [{"seed": 5}, {"clip_norm": 2.0}, {"schedule": None}])
def test_another_runs_checkpoint_is_refused(tmp_path, arguments):
    run(epochs=1, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match=r"checkpoint: .* is of a run with another .*delete"):
        run(checkpoint=tmp_path / "run", **arguments)


def test_another_models_checkpoint_is_refused(tmp_path):
    run(epochs=1, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="is of a run with another model"):
        run(plain_model(), checkpoint=tmp_path / "run")


def test_a_model_is_no_checkpoint(tmp_path):
    small_model().save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"model: expected a checkpoint .* got format 'cylstm'"):
        run(checkpoint=tmp_path / "model")


KILLED = """
import sys

sys.path.append(sys.argv[2])
import test_fit

test_fit.run(epochs=400, checkpoint=sys.argv[1], checkpoint_every=3)
"""


def test_kill_minus_nine_costs_no_bit(tmp_path):
    """Killed at any moment, even while it writes, a run goes on to the bits of an unkilled one."""
    path, program = tmp_path / "run", tmp_path / "program.py"
    program.write_text(KILLED)
    for _ in range(3):
        before = path.stat().st_mtime_ns if path.exists() else None
        process = subprocess.Popen(
            [sys.executable, str(program), str(path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert process.poll() is None, process.stdout.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    _, reached = run(epochs=0, checkpoint=path)
    epochs = len(reached.loss) + 2
    model, history = run(epochs=epochs, checkpoint=path)
    expected, expected_history = run(epochs=epochs)
    assert_same(model.state_dict(), expected.state_dict())
    assert history == expected_history


# Interruption and divergence ----------------------------------------------------------------------


@pytest.fixture
def ctrl_c():
    """Python's own handler, which a process that was started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_the_step_to_end():
    """A signal amid the optimizer's step: parameters and slots are those of a whole step."""

    class Slow(SGD):
        def _update(self, parameter, gradient, rows, **slots):
            if self.steps == 3:
                signal.raise_signal(signal.SIGINT)
            super()._update(parameter, gradient, rows, **slots)

    first, second = plain_model(), plain_model()
    interrupted = Slow(first, lr=0.1, momentum=0.9)
    with pytest.raises(KeyboardInterrupt):
        fit(first, streams(), cross_entropy_loss, interrupted, epochs=9, seed=0)
    assert interrupted.steps == 3
    fit(
        second, streams(), cross_entropy_loss, SGD(second, lr=0.1, momentum=0.9), epochs=1,
        steps_per_epoch=3, seed=0,
    )  # fmt: skip
    assert_same(first.state_dict(), second.state_dict())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_fit_runs_in_another_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(run(epochs=1)))
    thread.start()
    thread.join()
    assert_same(done[0][0].state_dict(), run(epochs=1)[0].state_dict())


def diverging(**arguments):
    model = Linear(1, 1, dtype="float64", seed=0)
    x = np.linspace(-3, 3, 32)[:, None]
    arguments = {"data": (x, 2 * x), "loss": mse_loss} | arguments
    before = []

    def schedule(step, losses):
        before.append(model.state_dict())
        return 1e30

    data, loss = arguments.pop("data"), arguments.pop("loss")
    try:
        fit(model, data, loss, SGD(model), epochs=20, batch_size=16, seed=0,
            schedule=schedule, **arguments)  # fmt: skip
    finally:
        assert all(np.isfinite(p).all() for _, p in model.named_parameters())


def test_divergence_says_where_and_what_to_try():
    message = (
        r"the (loss is (inf|nan)|gradient of \w+ is not finite) at batch [12] of epoch \d+; "
        r"try a smaller learning rate \(it was 1e\+30\), clip_norm=1.0"
    )
    with pytest.raises(Diverged, match=message):
        diverging()


def test_bad_data_is_told_from_divergence():
    x = np.ones((16, 1))
    bad = np.full((16, 1), np.nan)
    with pytest.raises(Diverged, match="nan at batch 1 of epoch 1: its x holds NaN or infinity"):
        diverging(data=(bad, x))
    with pytest.raises(Diverged, match="nan at batch 1 of epoch 1: its target holds NaN"):
        diverging(data=(x, bad))


def test_a_gradient_that_is_not_finite_stops_as_well():
    def loss(prediction, target):
        return 1.0, np.full_like(prediction, np.inf)

    with pytest.raises(Diverged, match="the gradient of weight is not finite at batch 1 of epoch"):
        diverging(loss=loss)


# The history and the bar --------------------------------------------------------------------------


def test_the_history_can_be_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    _, history = run()
    axes = history.plot()
    assert [line.get_label() for line in axes.get_lines()] == ["training", "validation"]
    np.testing.assert_array_equal(axes.get_lines()[1].get_ydata(), history.validation)
    axes.figure.savefig(tmp_path / "history.png")
    assert history.plot(axes) is axes


def test_the_bar_counts_batches(capsys):
    pytest.importorskip("tqdm")
    run(progress=True)
    shown = capsys.readouterr().err
    assert "24/24" in shown
    assert "epoch=3" in shown
    assert "validation=" in shown


@pytest.mark.parametrize(
    ("missing", "call"),
    [
        ("tqdm", lambda: run(progress=True)),
        ("matplotlib.figure", lambda: run(epochs=1)[1].plot()),
    ],
)
def test_what_is_missing_is_named(monkeypatch, missing, call):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name == missing:
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'cylstm\[train\]'"):
        call()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs: expected an integer from 0"),
        ({"epochs": 1, "checkpoint_every": 2}, ValueError, "checkpoint: expected a path"),
        ({"epochs": 1, "patience": 2}, ValueError, "validation: expected data beside patience"),
        ({"epochs": 1, "seed": "x"}, TypeError, "seed: expected an integer, got 'x'"),
        ({"epochs": 1, "progress": 1}, TypeError, "progress: expected True or False"),
        ({"epochs": 1, "data": np.ones(3)}, TypeError, "data: expected a Source.* got ndarray"),
        ({"epochs": 1, "data": (1,)}, ValueError, r"data: expected \(x, target\)"),
        ({"epochs": 1, "data": [np.ones(3)]}, TypeError, "data: expected batches .* got ndarray"),
        ({"epochs": 1, "data": []}, ValueError, "expected batches for epoch 1, got none"),
        ({"epochs": 1, "batch_size": 0}, ValueError, "batch_size: expected an integer from 1"),
        ({"epochs": 1, "clip_norm": 0}, ValueError, "clip_norm: expected a positive number"),
    ],
)
def test_bad_arguments(arguments, error, message):
    model, x = Linear(1, 1, dtype="float64"), np.ones((4, 1))
    arguments = {"data": (x, x)} | arguments
    with pytest.raises(error, match=message):
        fit(model, arguments.pop("data"), mse_loss, Adam(model), **arguments)


def test_neither_an_lstm_nor_a_layer():
    with pytest.raises(TypeError, match="model: expected a Layer or an LSTM, GRU or RNN, got 3"):
        evaluate(3, [], mse_loss)
    with pytest.raises(ValueError, match="data: expected at least one batch, got none"):
        evaluate(Linear(1, 1), [], mse_loss)
    with pytest.raises(ValueError, match="target: expected as many examples as x"):
        Arrays(np.ones((2, 3)), np.ones((2, 4)))


# Metrics ------------------------------------------------------------------------------------------


def ragged(rng, classes=4):
    lengths = np.array([5, 2, 3, 1, 4, 5])
    x = rng.normal(size=(5, 6, 2)).astype(np.float32)
    return x, rng.integers(classes, size=(5, 6)), lengths


def test_metrics_are_over_what_counts(rng):
    """Of unequal batches, ragged, with labels that do not count: as of all at once."""
    x, labels, lengths = ragged(rng)
    labels[0, 2] = -100
    model = Sequential(cylstm.LSTM(2, 6, seed=1), Linear(6, 4, seed=2))
    still = SGD(model, lr=0.0)
    history = fit(
        model, (x, labels, lengths), cross_entropy_loss, still, epochs=2, batch_size=4, seed=0,
        validation=(x, labels, lengths),
        metrics={"accuracy": "accuracy", "perplexity": "perplexity", "first": first_class},
    )  # fmt: skip
    counts = (np.arange(5)[:, None] < lengths) & (labels != -100)
    logits, own = model(x, lengths=lengths)[counts], labels[counts]
    shares = np.exp(logits.astype(float))
    shares /= shares.sum(-1, keepdims=True)
    expected = {
        "accuracy": np.mean(logits.argmax(-1) == own),
        "perplexity": np.exp(-np.mean(np.log(shares[np.arange(len(own)), own]))),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(history.metrics[name], [value] * 2, rtol=1e-6)
        np.testing.assert_allclose(history.validation_metrics[name], [value] * 2, rtol=1e-6)
    assert list(history.metrics) == ["accuracy", "perplexity", "first"]


def first_class(prediction, target):
    assert prediction.ndim == 2
    return np.float32(np.mean(target == 0))


def test_metrics_of_numbers(rng):
    x, target = rng.normal(size=(7, 3)).astype("f4"), rng.normal(size=(7, 2)).astype("f4")
    model = Linear(3, 2, seed=0)
    history = fit(
        model, (x, target), mse_loss, SGD(model, lr=0.0), epochs=1, batch_size=4,
        metrics=["mae", "mse", "rmse"],
    )  # fmt: skip
    error = (model(x) - target).astype(float)
    np.testing.assert_allclose(history.metrics["mae"], np.abs(error).mean(), rtol=1e-6)
    np.testing.assert_allclose(history.metrics["rmse"], np.sqrt((error**2).mean()), rtol=1e-6)
    np.testing.assert_allclose(history.metrics["mse"], history.loss, rtol=1e-6)
    assert history.validation_metrics == {}


def test_metrics_outlive_an_interruption(tmp_path):
    plain, whole = run(data=list(streams().epoch(None)), metrics=["perplexity"])
    assert len(whole.metrics["perplexity"]) == len(whole.validation_metrics["perplexity"]) == 3
    for at in (1, 11):
        path = tmp_path / f"run {at}"
        given = {"metrics": ["perplexity"], "checkpoint": path}
        with pytest.raises(KeyboardInterrupt):
            run(data=Interrupted(streams(), at), **given)
        resumed, history = run(data=list(streams().epoch(None)), **given)
        assert history == whole
        assert_same(resumed.state_dict(), plain.state_dict())
        with pytest.raises(ValueError, match="another metrics"):
            run(**given | {"metrics": ["accuracy"]})


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ("mae", TypeError, "metrics: expected a list"),
        (3, TypeError, "metrics: expected a list"),
        (["precision"], ValueError, "metrics: expected one of accuracy, mae"),
        ([3], TypeError, "metrics: expected names and functions"),
        (["accuracy"] * 2, ValueError, "metrics: expected each name once"),
        ([lambda p, t: "much"], TypeError, "metrics.'<lambda>'.: expected a number"),
        ([lambda p, t: p], TypeError, "metrics.'<lambda>'.: expected a number"),
        (["mae"], TypeError, "target: expected dtype"),
    ],
)
def test_metrics_that_are_none(metrics, error, message):
    with pytest.raises(error, match=message):
        run(metrics=metrics)


def test_a_checkpoint_of_false_metrics_is_refused(tmp_path):
    run(metrics=["perplexity"], checkpoint=tmp_path / "run")
    tensors, metadata = read(tmp_path / "run")
    for change in (
        lambda numbers: numbers["history"]["metrics"]["perplexity"].pop(),
        lambda numbers: numbers["history"].update(metrics=[1]),
        lambda numbers: numbers["history"]["validation_metrics"].update(mae="much"),
        lambda numbers: numbers.update(measures={"mae": {"total": 1.0}}),
        lambda numbers: numbers.update(measures=None),
    ):
        numbers = json.loads(metadata["run"])
        change(numbers)
        write(tmp_path / "run", tensors, metadata | {"run": json.dumps(numbers)})
        with pytest.raises(ValueError, match=r"metrics|measures"):
            run(metrics=["perplexity"], checkpoint=tmp_path / "run")
