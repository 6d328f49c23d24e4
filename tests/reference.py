"""The LSTM written straight from its equations, and random cases to compare cylstm with it.

`forward` takes one step of one sequence at a time in plain NumPy, in the longest numbers there are.
"""

from dataclasses import dataclass
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


def cell(parameters, suffix, coupled, clip, activations, regions):
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


def forward(
    parameters,
    x,
    state=None,
    lengths=None,
    *,
    num_layers=1,
    batch_first=False,
    bidirectional=False,
    reverse=False,
    coupled=False,
    clip=None,
    activations=("sigmoid", "tanh", "tanh"),
    regions=None,
    **_seen_in_parameters,
):
    """y, (h_n, c_n) of the LSTM of these parameters; the keywords are those of cylstm.LSTM."""
    parameters = {name: np.asarray(array, REAL) for name, array in parameters.items()}
    x = np.asarray(x, REAL)
    unbatched = x.ndim == 2
    if unbatched:
        x = x[:, np.newaxis]
        state = state and tuple(np.expand_dims(s, 1) for s in state)
    elif batch_first:
        x = x.swapaxes(0, 1)
    directions = [("", reverse), ("_reverse", True)][: 1 + bidirectional]
    triples = [activations] * len(directions) if len(activations) == 3 else activations
    steps, batch, _ = x.shape
    lengths = np.full(batch, steps) if lengths is None else np.reshape(lengths, batch)
    rows, outputs = parameters["weight_hh_l0"].shape
    sizes = (outputs, rows // 4)
    runs = num_layers * len(directions)
    state = state or [np.zeros((runs, batch, size)) for size in sizes]
    h_n, c_n = (np.array(s, REAL) for s in state)
    regions = [] if regions is None else regions

    for layer in range(num_layers):
        ys = []
        for d, (direction, backwards) in enumerate(directions):
            run = layer * len(directions) + d
            suffix = f"_l{layer}{direction}"
            step = cell(parameters, suffix, coupled, clip or np.inf, triples[d], regions)
            y = np.zeros((steps, batch, outputs), REAL)
            for n, length in enumerate(lengths):
                h, c = h_n[run, n], c_n[run, n]
                for t in reversed(range(length)) if backwards else range(length):
                    h, c = step(x[t, n], h, c)
                    y[t, n] = h
                h_n[run, n], c_n[run, n] = h, c
            ys.append(y)
        x = np.concatenate(ys, axis=2)

    if unbatched:
        return x[:, 0], (h_n[:, 0], c_n[:, 0])
    return x.swapaxes(0, 1) if batch_first else x, (h_n, c_n)


def inner(outputs, weights):
    """The linear functional sum(y * grad_y) + sum(h_n * grad_h_n) + sum(c_n * grad_c_n)."""
    (y, (h, c)), (grad_y, (grad_h, grad_c)) = outputs, weights
    return np.vdot(y, grad_y) + np.vdot(h, grad_h) + np.vdot(c, grad_c)


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
    """An LSTM, what goes in, and the output gradients (or weights of the functional) to go back."""

    lstm: cylstm.LSTM
    config: dict
    x: np.ndarray
    state: tuple
    lengths: Any
    grad_y: np.ndarray
    grad_state: tuple

    @property
    def inputs(self):
        return self.x, self.state, self.lengths

    def expected(self):
        return forward(dict(self.lstm.named_parameters()), *self.inputs, **self.config)

    def gradients(self, **options):
        """What cylstm says, as one dictionary; `options` go to its forward."""
        _, _, tape = self.lstm.forward(*self.inputs, **options)
        return flat(self.lstm.backward(tape, self.grad_y, self.grad_state))

    def numeric_gradients(self):
        """The same of the reference, by differences."""
        x, h_0, c_0 = (array.astype(REAL) for array in (self.x, *self.state))
        parameters = {name: array.astype(REAL) for name, array in self.lstm.named_parameters()}
        home = None

        def loss():
            nonlocal home
            regions = []
            outputs = forward(
                parameters, x, (h_0, c_0), self.lengths, regions=regions, **self.config
            )
            regions = np.concatenate([np.empty(0, int), *regions])
            home = regions if home is None else home
            if not np.array_equal(regions, home):
                raise KinkCrossed
            return inner(outputs, (self.grad_y, self.grad_state))

        loss()
        return numeric_gradient(loss, {"x": x, "h_0": h_0, "c_0": c_0, **parameters})

    def astype(self, dtype):
        def cast(arrays):
            return tuple(a.astype(dtype) for a in arrays)

        config = self.config | {"dtype": dtype}
        lstm = cylstm.LSTM(**config)
        lstm.load_state_dict({name: a.astype(dtype) for name, a in self.lstm.named_parameters()})
        x, grad_y = cast([self.x, self.grad_y])
        return Case(lstm, config, x, cast(self.state), self.lengths, grad_y, cast(self.grad_state))


def flat(gradients):
    """What `backward` returns as one dictionary."""
    grad_x, (grad_h, grad_c), parameters = gradients
    return {"x": grad_x, "h_0": grad_h, "c_0": grad_c, **parameters}


def random_lstm(rng, **config):
    """An LSTM whose parameters, biases and peepholes too, are far from zero."""
    lstm = cylstm.LSTM(**config)
    with lstm.edit() as parameters:
        for array in parameters.values():
            fan_in = array.shape[1] if array.ndim == 2 else 1
            array[...] = rng.standard_normal(array.shape) / np.sqrt(fan_in)
    return lstm


def random_case(rng, steps, batch, lengths=None, **config):
    """A random LSTM with its input, without the axis of the batch where that is None."""
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
        return draw(runs, *axis, outputs), draw(runs, *axis, hidden)

    return Case(
        lstm=random_lstm(rng, **config),
        config=config,
        x=draw(*lead, config["input_size"]),
        state=draw_state(),
        lengths=lengths,
        grad_y=draw(*lead, directions * outputs),
        grad_state=draw_state(),
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
