"""The LSTM and its gradients in float64 and plain NumPy, for answers to be compared with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .common import Problem


class Layer(NamedTuple):
    """One layer and direction, reading forward, and all that it has computed."""

    w_ih: np.ndarray  # (4H, I)
    w_hh: np.ndarray  # (4H, H)
    x: np.ndarray  # (T, N, I)
    gates: np.ndarray  # (T, 4, N, H): i, f, g, o
    h: np.ndarray  # (T + 1, N, H), from h_0 on; it stays where a sequence has ended
    c: np.ndarray  # (T + 1, N, H)
    valid: np.ndarray  # (T, N, 1), whether the sequence still runs

    @property
    def y(self) -> np.ndarray:
        return self.h[1:] * self.valid


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * z)


def turned(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each sequence from its own end to its start; its padding stays. Its own inverse."""
    steps = np.arange(len(x))[:, None]
    order = np.where(steps < lengths, lengths - 1 - steps, steps)
    return np.take_along_axis(x, order[:, :, None], axis=0)


def run_layer(
    x: np.ndarray,
    w_ih: np.ndarray,
    w_hh: np.ndarray,
    bias: np.ndarray,
    h_0: np.ndarray,
    c_0: np.ndarray,
    lengths: np.ndarray,
) -> Layer:
    steps, batch, hidden = len(x), *h_0.shape
    valid = (np.arange(steps)[:, None] < lengths)[:, :, None]
    gates = np.empty((steps, 4, batch, hidden))
    h, c = np.empty((2, steps + 1, batch, hidden))
    h[0], c[0] = h_0, c_0
    for t in range(steps):
        z = (x[t] @ w_ih.T + h[t] @ w_hh.T + bias).reshape(batch, 4, hidden).swapaxes(0, 1)
        i, f, g, o = gates[t] = sigmoid(z[0]), sigmoid(z[1]), np.tanh(z[2]), sigmoid(z[3])
        c[t + 1] = np.where(valid[t], f * c[t] + i * g, c[t])
        h[t + 1] = np.where(valid[t], o * np.tanh(c[t + 1]), h[t])
    return Layer(w_ih, w_hh, x, gates, h, c, valid)


def run_layer_back(layer: Layer, grad_y: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients of the layer's inputs and parameters."""
    steps, _, batch, hidden = layer.gates.shape
    grad_z = np.empty((steps, batch, 4 * hidden))
    grad_h, grad_c = np.zeros((2, batch, hidden))
    for t in reversed(range(steps)):
        i, f, g, o = layer.gates[t]
        on, output = layer.valid[t], np.tanh(layer.c[t + 1])
        by_h = (grad_h + grad_y[t]) * on
        by_c = (by_h * o * (1 - output**2) + grad_c) * on
        z = (by_c * g * i * (1 - i), by_c * layer.c[t] * f * (1 - f),
             by_c * i * (1 - g**2), by_h * output * o * (1 - o))  # fmt: skip
        grad_z[t] = np.concatenate(z, axis=1)
        grad_h = np.where(on, grad_z[t] @ layer.w_hh, grad_h)
        grad_c = np.where(on, by_c * f, grad_c)
    return {
        "x": grad_z @ layer.w_ih,
        "h_0": grad_h,
        "c_0": grad_c,
        "weight_ih": np.einsum("tnz,tni->zi", grad_z, layer.x, optimize=True),
        "weight_hh": np.einsum("tnz,tnh->zh", grad_z, layer.h[:-1], optimize=True),
        "bias": grad_z.sum((0, 1)),
    }


def run(problem: Problem) -> tuple[dict[str, np.ndarray], list[Layer]]:
    """The outputs y, h_n and c_n, and the layers behind them."""
    shape, layers = problem.shape, []
    lengths = np.full(shape.batch, shape.steps) if problem.lengths is None else problem.lengths
    x = problem.x.astype(np.float64)
    for k, (ending, _) in enumerate(shape.cells):
        backwards = ending.endswith("_reverse")
        names = ("weight_ih", "weight_hh", "bias")
        own = (problem.weights[name + ending].astype(np.float64) for name in names)
        given = turned(x, lengths) if backwards else x
        layers.append(run_layer(given, *own, problem.h_0[k], problem.c_0[k], lengths))
        if (k + 1) % shape.directions == 0:
            ys = [layer.y for layer in layers[-shape.directions :]]
            x = np.concatenate([ys[0], *(turned(y, lengths) for y in ys[1:])], axis=2)
    outputs = {"y": x, "h_n": np.stack([layer.h[-1] for layer in layers]),
               "c_n": np.stack([layer.c[-1] for layer in layers])}  # fmt: skip
    return outputs, layers


def outputs(problem: Problem) -> dict[str, np.ndarray]:
    return run(problem)[0]


def gradients(problem: Problem) -> dict[str, np.ndarray]:
    """Of sum(y * grad_y), by x, h_0, c_0 and each parameter."""
    shape = problem.shape
    lengths = np.full(shape.batch, shape.steps) if problem.lengths is None else problem.lengths
    _, layers = run(problem)
    found: dict[str, np.ndarray] = {}
    states = {"h_0": [], "c_0": []}
    grad_y = problem.grad_y.astype(np.float64)
    for k in reversed(range(shape.layers)):
        grad_x = 0.0
        for d in range(shape.directions):
            which = k * shape.directions + d
            part = grad_y[:, :, d * shape.hidden_size : (d + 1) * shape.hidden_size]
            by = run_layer_back(layers[which], turned(part, lengths) if d else part)
            by_x = by.pop("x")
            grad_x = grad_x + (turned(by_x, lengths) if d else by_x)
            for name, by_state in states.items():
                by_state.insert(d, by.pop(name))
            found |= {name + shape.cells[which][0]: grad for name, grad in by.items()}
        grad_y = grad_x
    return {"x": grad_y, **{name: np.stack(of) for name, of in states.items()}, **found}
