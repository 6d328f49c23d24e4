"""What goes from layer to layer in a model is not copied; what a user has, or their class, is."""

import itertools

import numpy as np
import pytest

import cylstm
from cylstm.layers import (
    Dropout,
    Embedding,
    Last,
    Layer,
    Linear,
    MaxPool,
    MeanPool,
    ReLU,
    Sequential,
)
from cylstm.layers.outputs import as_layer
from reference import assert_same_bits

F, WORDS = 4, 50


class Same(Layer):
    """Gives on what it is given."""

    config = {}  # noqa: RUF012

    def forward(self, x):
        return x, None

    def backward(self, tape, grad_y):
        return grad_y, {}

    def named_parameters(self):
        return iter(())


class OwnLinear(Linear):
    """Changes what it is given."""

    def forward(self, x):
        y, tape = super().forward(x)
        x += 1
        return y + 1, tape


class OwnLSTM(cylstm.LSTM):
    """Changes what it is given."""

    def forward(self, x, *args, **given):
        y, *others = super().forward(x, *args, **given)
        x *= 2
        return y + 1, *others


BODIES = {
    "lstm": lambda: cylstm.LSTM(F, F, seed=1),
    "both ways": lambda: cylstm.LSTM(F, F // 2, bidirectional=True, seed=2),
    "stack": lambda: cylstm.LSTM(F, F, num_layers=2, seed=3),
    "gru": lambda: cylstm.GRU(F, F, seed=4),
    "rnn": lambda: cylstm.RNN(F, F, seed=5),
    "linear": lambda: Linear(F, F, seed=6),
    "relu": ReLU,
    "no dropout": lambda: Dropout(0.0),
    "same": Same,
    "own linear": lambda: OwnLinear(F, F, seed=7),
    "own lstm": lambda: OwnLSTM(F, F, seed=8),
    "model": lambda: Sequential(cylstm.LSTM(F, F, seed=9), Linear(F, F, seed=9)),
}
ENDS = {"": None, "last": Last, "max": MaxPool, "mean": MeanPool}
HEADS = {"words": lambda: Embedding(WORDS, F, seed=0), "numbers": None}


def layers_of(model):
    head, *bodies, end = model
    made = [BODIES[name]() for name in bodies]
    if HEADS[head]:
        made.insert(0, HEADS[head]())
    return made if ENDS[end] is None else [*made, ENDS[end]()]


def input_of(model, steps, rng):
    if model[0] == "words":
        return rng.integers(0, WORDS, (steps, 3))
    return rng.normal(size=(steps, 3, F)).astype(np.float32)


def alone(layers, x, gradient_of):
    """The output, and the gradients by layer, of calls that share no memory."""
    tapes = []
    for layer in layers:
        x, tape = layer.forward(x.copy())
        tapes.append(tape)
    y, grads = x, []
    grad = gradient_of(y)
    for layer, tape in zip(reversed(layers), reversed(tapes), strict=True):
        grad, own = layer.backward(tape, grad)
        grads.insert(0, own)
    return y, grads


def dense(gradient):
    return gradient if isinstance(gradient, np.ndarray) else gradient.dense()


@pytest.mark.parametrize("model", [*itertools.product(HEADS, BODIES, BODIES, ENDS)], ids="-".join)
def test_a_model_is_its_layers_one_by_one_whatever_is_done_to_what_it_gave(model, rng):
    x = input_of(model, 40, rng)
    layers = [as_layer(layer) for layer in layers_of(model)]
    scale = rng.normal(size=F).astype(np.float32)
    right, right_grads = alone(layers, x, lambda y: np.broadcast_to(scale, y.shape).copy())
    whole = Sequential(*layers)
    given = x.copy()
    y, tape = whole.forward(given)
    y_before = y.copy()
    assert_same_bits({"y": y}, {"y": right})
    y[...] = 9
    given[...] = 1
    _, grads = whole.backward(tape, np.broadcast_to(scale, y.shape).copy())
    wanted = {
        f"{i}.{name}": dense(value)
        for i, own in enumerate(right_grads)
        for name, value in own.items()
    }
    got = {name: dense(value) for name, value in grads.items()}
    for name, value in wanted.items():  # a looked-up product is summed by vectors
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5)
    assert got.keys() == wanted.keys()
    assert_same_bits({"y": whole.forward(x.copy())[0]}, {"y": y_before})


@pytest.mark.parametrize("batch_first", [False, True])
def test_between_our_own_layers_there_is_no_copy(batch_first):
    lstm = cylstm.LSTM(F, F, batch_first=batch_first, seed=0)
    model = Sequential(lstm, Linear(F, F, seed=0))
    _, (lstm_tape, linear_tape) = model.forward(np.ones((5, 3, F), np.float32))
    kept = lstm_tape[0].layers[-1].y
    assert np.shares_memory(kept, linear_tape[0]) is not batch_first
