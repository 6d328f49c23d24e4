"""JAX: a jitted scan over the steps, the input's products ahead of it.

In inference the weights are constants of the compiled function, with which XLA is up to ten times
faster than with weights that are given.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.benchmarks.common import Problem
from benchmarks.peers.libraries import Way

DISTRIBUTIONS = ["jax", "jaxlib"]


def set_threads(threads: int) -> None:
    """The affinity of the process does it: XLA has as many threads as CPUs."""


def run_layer(weights, x, h, c, valid, unroll):
    """y, h_n, c_n of one layer and direction; `valid` (T, N, 1) may be None."""
    w_ih, w_hh, bias = weights

    def step(state, inputs):
        h, c = state
        z, on = inputs
        i, f, g, o = jnp.split(z + h @ w_hh.T, 4, axis=1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
        if on is None:
            return (new_h, new_c), new_h
        return (jnp.where(on, new_h, h), jnp.where(on, new_c, c)), new_h * on

    (h, c), y = lax.scan(step, (h, c), (x @ w_ih.T + bias, valid), unroll=unroll)
    return y, h, c


def run(problem: Problem, weights, x, h_0, c_0, unroll=1):
    shape = problem.shape
    valid = None
    if problem.lengths is not None:
        valid = jnp.arange(shape.steps)[:, None, None] < problem.lengths[:, None]
    states = []
    for layer in range(shape.layers):
        ys = []
        for d in range(shape.directions):
            k = layer * shape.directions + d
            ending, _ = shape.cells[k]
            own = [weights[name + ending] for name in ("weight_ih", "weight_hh", "bias")]
            given = x[::-1] if d else x
            y, *state = run_layer(own, given, h_0[k], c_0[k], valid, unroll)
            ys.append(y[::-1] if d else y)
            states.append(state)
        x = jnp.concatenate(ys, axis=2)
    h_n, c_n = (jnp.stack(parts) for parts in zip(*states, strict=True))
    return x, h_n, c_n


def inference(problem: Problem) -> dict:
    return {"jit": partial(step if problem.shape.steps == 1 else whole, problem)}


def whole(problem: Problem) -> Way:
    compiled = jax.jit(lambda *given: run(problem, problem.weights, *given))
    given = jax.device_put((problem.x, problem.h_0, problem.c_0))

    def arrays(result):
        return dict(zip(("y", "h_n", "c_n"), result, strict=True))

    return Way(lambda: jax.block_until_ready(compiled(*given)), arrays)


def step(problem: Problem) -> Way:
    compiled = jax.jit(lambda *given: run(problem, problem.weights, *given))
    x, h, c = jax.device_put((problem.x, problem.h_0, problem.c_0))

    def call():
        nonlocal h, c
        y, h, c = compiled(x, h, c)
        return y.block_until_ready()

    return Way(call, lambda y: {"y": y})


def training(problem: Problem) -> dict:
    return {"jit": partial(forward_backward, problem, unroll=1),
            "jit, unrolled": partial(forward_backward, problem, unroll=4)}  # fmt: skip


def forward_backward(problem: Problem, unroll: int) -> Way:
    def gradients(given, grad_y):
        _, back = jax.vjp(lambda *given: run(problem, *given, unroll=unroll)[0], *given)
        return back(grad_y)

    compiled, grad_y = jax.jit(gradients), jax.device_put(problem.grad_y)
    given = jax.device_put((problem.weights, problem.x, problem.h_0, problem.c_0))

    def arrays(result):
        weights, x, h_0, c_0 = result
        return {"x": x, "h_0": h_0, "c_0": c_0, **weights}

    return Way(lambda: jax.block_until_ready(compiled(given, grad_y)), arrays)
