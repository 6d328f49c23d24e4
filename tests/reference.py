"""The cells written straight from their equations, and random cases to compare cylstm with them.

`forward` takes one step of one sequence at a time in plain NumPy, in the longest numbers there are.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import cylstm

REAL = np.longdouble  # so that differences of it are exact to far more than a small gradient
FORWARD_TOLERANCE = {"float32": 5e-6, "float64": 1e-12}
GRADIENT_TOLERANCE = 1e-7


def nonlinearity(activation, clip, regions):
    """The function activation(clip(z)); it notes in `regions` between which kinks each z lies."""
    name, slope, offset = (activation, 0.2, 0.5) if isinstance(activation, str) else activation
    function, kinks = {
        "sigmoid": (lambda z: 0.5 + 0.5 * np.tanh(0.5 * z), []),
        "tanh": (np.tanh, []),
        "relu": (lambda z: np.maximum(z, 0), [0]),
        "hard_sigmoid": (
            lambda z: (slope * z + offset).clip(0, 1),
            [-offset / slope, (1 - offset) / slope],
        ),
    }[name]
    kinks = np.sort([*kinks, -clip, clip])

    def clipped(z):
        regions.append(kinks.searchsorted(z))
        return function(z.clip(-clip, clip))

    return clipped


def lstm_cell(parameters, suffix, clip, activations, regions, coupled=False):
    """The step (x_t, h, c) -> (h, c) of the layer and direction named by `suffix`."""
    w_ih, w_hh = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
    hidden = len(w_ih) // 4
    bias = parameters.get("bias" + suffix, np.zeros(4 * hidden))
    p_i, p_f, p_o = parameters.get("weight_p" + suffix, np.zeros(3 * hidden)).reshape(3, -1)
    projection = parameters.get("weight_hr" + suffix, np.eye(hidden))
    gate, candidate = (nonlinearity(name, clip, regions) for name in activations[:2])
    output = nonlinearity(activations[2], np.inf, regions)

    def step(x, h, c):
        z_i, z_f, z_g, z_o = (w_ih @ x + w_hh @ h + bias).reshape(4, -1)
        i = gate(z_i + p_i * c)
        f = 1 - i if coupled else gate(z_f + p_f * c)
        g = candidate(z_g)
        c = f * c + i * g
        o = gate(z_o + p_o * c)
        return projection @ (o * output(c)), c

    return step


def gru_cell(parameters, suffix, clip, activations, regions):
    """The same, with a c that stays as it is."""
    w_ih, w_hh = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
    hidden = len(w_ih) // 3
    bias = parameters.get("bias" + suffix, np.zeros(3 * hidden))
    bias_hn = parameters.get("bias_hn" + suffix, np.zeros(hidden))
    gate, candidate = (nonlinearity(name, clip, regions) for name in activations)

    def step(x, h, c):
        x_r, x_z, x_n = (w_ih @ x + bias).reshape(3, -1)
        h_r, h_z, h_n = (w_hh @ h).reshape(3, -1)
        r, z = gate(x_r + h_r), gate(x_z + h_z)
        n = candidate(x_n + r * (h_n + bias_hn))
        return (1 - z) * n + z * h, c

    return step


def rnn_cell(parameters, suffix, clip, activations, regions):
    """The same, with a c that stays as it is."""
    w_ih, w_hh = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
    bias = parameters.get("bias" + suffix, np.zeros(len(w_ih)))
    (function,) = (nonlinearity(name, clip, regions) for name in activations)
    return lambda x, h, c: (function(w_ih @ x + w_hh @ h + bias), c)


def is_activation(given):
    return isinstance(given, str) or (len(given) == 3 and isinstance(given[1], float))


def forward(
    parameters,
    x,
    state=None,
    lengths=None,
    *,
    kind="LSTM",
    num_layers=1,
    batch_first=False,
    bidirectional=False,
    reverse=False,
    coupled=False,
    clip=None,
    activations=None,
    nonlinearity="tanh",
    regions=None,
    resets=None,
    **_seen_in_parameters,
):
    """y, (h_n, c_n) of the LSTM of these parameters, or y, h_n of another kind.

    The keywords are those of cylstm.LSTM, GRU and RNN.
    """
    make, gates, standard = {
        "LSTM": (partial(lstm_cell, coupled=coupled), 4, ("sigmoid", "tanh", "tanh")),
        "GRU": (gru_cell, 3, ("sigmoid", "tanh")),
        "RNN": (rnn_cell, 1, (nonlinearity,) if is_activation(nonlinearity) else None),
    }[kind]
    activations = activations or standard or [(one,) for one in nonlinearity]
    parameters = {name: np.asarray(array, REAL) for name, array in parameters.items()}
    x = np.asarray(x, REAL)
    unbatched = x.ndim == 2
    if unbatched:
        x = x[:, np.newaxis]
        resets = None if resets is None else np.expand_dims(resets, 1)
    elif batch_first:
        x = x.swapaxes(0, 1)
        resets = None if resets is None else np.swapaxes(resets, 0, 1)
    directions = [("", reverse), ("_reverse", True)][: 1 + bidirectional]
    same = all(is_activation(one) for one in activations)
    of_direction = [activations] * len(directions) if same else activations
    steps, batch, _ = x.shape
    lengths = np.full(batch, steps) if lengths is None else np.reshape(lengths, batch)
    rows, outputs = parameters["weight_hh_l0"].shape
    sizes = (outputs, rows // gates)
    runs = num_layers * len(directions)
    zeros = [np.zeros((runs, batch, size), REAL) for size in sizes]
    given = [np.array(s, REAL).reshape(runs, batch, -1) for s in leaves(state) if s is not None]
    h_n, c_n = (*given, *zeros[len(given) :])
    starts = np.zeros((steps + 1, batch), bool)
    starts[:steps] = False if resets is None else resets
    regions = [] if regions is None else regions

    for layer in range(num_layers):
        ys = []
        for d, (direction, backwards) in enumerate(directions):
            run = layer * len(directions) + d
            suffix = f"_l{layer}{direction}"
            step = make(parameters, suffix, clip or np.inf, of_direction[d], regions)
            y = np.zeros((steps, batch, outputs), REAL)
            for n, length in enumerate(lengths):
                h, c = h_n[run, n], c_n[run, n]
                for t in reversed(range(length)) if backwards else range(length):
                    if t + 1 < length and starts[t + 1, n] if backwards else starts[t, n]:
                        h, c = np.zeros_like(h), np.zeros_like(c)
                    h, c = step(x[t, n], h, c)
                    y[t, n] = h
                h_n[run, n], c_n[run, n] = h, c
            ys.append(y)
        x = np.concatenate(ys, axis=2)

    if unbatched:
        x, h_n, c_n = x[:, 0], h_n[:, 0], c_n[:, 0]
    elif batch_first:
        x = x.swapaxes(0, 1)
    return x, (h_n, c_n) if kind == "LSTM" else h_n


def inner(outputs, weights):
    """The linear functional sum(y * grad_y) + sum(h_n * grad_h_n) + sum(c_n * grad_c_n)."""
    return sum(np.vdot(a, b) for a, b in zip(leaves(outputs), leaves(weights), strict=True))


def numeric_gradient(loss, arrays, step=2e-4):
    """The gradient of loss() by each of the arrays it reads: fourth-order central differences."""

    def derivative(array, index):
        def at(k):
            array[index] = centre + k * step
            return loss()

        centre = array[index]
        near, far = at(1) - at(-1), at(2) - at(-2)
        array[index] = centre
        return (8 * near - far) / (12 * step)

    return {
        name: np.array([derivative(array, i) for i in np.ndindex(array.shape)]).reshape(array.shape)
        for name, array in arrays.items()
    }


class KinkCrossed(Exception):
    """A difference step went over a kink of relu, hard_sigmoid or clip, where it says nothing."""


@dataclass
class Case:
    """A network, what goes in, and output gradients (or weights of the functional) to go back."""

    lstm: Any  # or a GRU, or an RNN
    config: dict
    x: np.ndarray
    state: Any
    lengths: Any
    grad_y: np.ndarray
    grad_state: Any
    resets: Any = None

    @property
    def kind(self):
        return type(self.lstm).__name__

    @property
    def more(self):
        """What is given beside the inputs."""
        return {} if self.resets is None else {"resets": self.resets}

    @property
    def inputs(self):
        return self.x, self.state, self.lengths

    def expected(self):
        parameters = dict(self.lstm.named_parameters())
        return forward(parameters, *self.inputs, kind=self.kind, **self.more, **self.config)

    def gradients(self, **options):
        """What cylstm says, as one dictionary; `options` go to its forward."""
        _, _, tape = self.lstm.forward(*self.inputs, **self.more, **options)
        return flat(self.lstm.backward(tape, self.grad_y, self.grad_state))

    def numeric_gradients(self):
        """The same of the reference, by differences."""
        x, *state = (array.astype(REAL) for array in (self.x, *leaves(self.state)))
        parameters = {name: array.astype(REAL) for name, array in self.lstm.named_parameters()}
        home = None

        def loss():
            nonlocal home
            regions = []
            outputs = forward(
                parameters, x, state, self.lengths, kind=self.kind, regions=regions,
                **self.more, **self.config,
            )  # fmt: skip
            regions = np.concatenate([np.empty(0, int), *regions])
            home = regions if home is None else home
            if not np.array_equal(regions, home):
                raise KinkCrossed
            return inner(outputs, (self.grad_y, self.grad_state))

        loss()
        named = dict(zip(("h_0", "c_0"), state, strict=False))
        return numeric_gradient(loss, {"x": x, **named, **parameters})

    def astype(self, dtype):
        def cast(given):
            return tuple(map(cast, given)) if isinstance(given, tuple) else given.astype(dtype)

        config = self.config | {"dtype": dtype}
        lstm = type(self.lstm)(**config)
        lstm.load_state_dict({name: cast(a) for name, a in self.lstm.named_parameters()})
        return replace(
            self, lstm=lstm, config=config, x=cast(self.x), state=cast(self.state),
            grad_y=cast(self.grad_y), grad_state=cast(self.grad_state),
        )  # fmt: skip


def flat(gradients):
    """What `backward` returns as one dictionary."""
    grad_x, state, parameters = gradients
    named = dict(zip(("h_0", "c_0"), leaves(state), strict=False))
    return {"x": grad_x, **named, **parameters}


def random_lstm(rng, kind="LSTM", **config):
    """An LSTM, or another, whose parameters, biases and peepholes too, are far from zero."""
    lstm = getattr(cylstm, kind)(**config)
    with lstm.edit() as parameters:
        for array in parameters.values():
            fan_in = array.shape[1] if array.ndim == 2 else 1
            array[...] = rng.standard_normal(array.shape) / np.sqrt(fan_in)
    return lstm


def random_case(rng, steps, batch, lengths=None, kind="LSTM", resets=None, **config):
    """A random LSTM, or another kind, with its input, without the axis of the batch where that is
    None; `resets` is the share of steps at which the state is reset."""
    config = {"input_size": 3, "hidden_size": 4, "dtype": "float64"} | config
    axis = () if batch is None else (batch,)
    lead = (*axis, steps) if config.get("batch_first") else (steps, *axis)
    directions = 1 + config.get("bidirectional", False)
    runs = directions * config.get("num_layers", 1)
    hidden = config["hidden_size"]
    outputs = config.get("proj_size") or hidden

    def draw(*shape):
        return rng.standard_normal(shape).astype(config["dtype"])

    def draw_state():
        h = draw(runs, *axis, outputs)
        return (h, draw(runs, *axis, hidden)) if kind == "LSTM" else h

    return Case(
        lstm=random_lstm(rng, kind, **config),
        config=config,
        x=draw(*lead, config["input_size"]),
        state=draw_state(),
        lengths=lengths,
        grad_y=draw(*lead, directions * outputs),
        grad_state=draw_state(),
        resets=None if resets is None else rng.random(lead) < resets,
    )


def assert_same_bits(actual, expected):
    for a, e in zip(leaves(actual), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, e, strict=True)


def assert_close(actual, expected, tolerance=None):
    """Each array of `actual` within `tolerance`, by default its dtype's, of the expected one."""
    for a, e in zip(leaves(actual), leaves(expected), strict=True):
        assert a.shape == e.shape
        limit = (tolerance or FORWARD_TOLERANCE[a.dtype.name]) * np.max(np.abs(e), initial=1)
        assert np.max(np.abs(a - e), initial=0) <= limit


def assert_gradients_close(actual, expected, tolerance=GRADIENT_TOLERANCE):
    assert actual.keys() == expected.keys()
    for name, a in actual.items():
        e = expected[name]
        assert a.shape == e.shape, name
        size = np.linalg.norm(a) + np.linalg.norm(e)
        assert np.linalg.norm(a - e) <= tolerance * size, name


def leaves(outputs):
    """The arrays of nested tuples, lists and dictionaries, in order."""
    if isinstance(outputs, dict):
        outputs = tuple(outputs.values())
    if isinstance(outputs, (tuple, list)):
        return [leaf for part in outputs for leaf in leaves(part)]
    return [outputs]
