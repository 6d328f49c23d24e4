"""Keras on TensorFlow: a functional model, compiled as a function or called for a batch."""

from __future__ import annotations

import os
from functools import partial

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

from benchmarks.benchmarks.common import Problem
from benchmarks.peers.libraries import Way

DISTRIBUTIONS = ["keras", "tensorflow_cpu"]


def set_threads(threads: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def lstm_layer(problem: Problem, backwards: bool) -> keras.layers.LSTM:
    return keras.layers.LSTM(
        problem.shape.hidden_size,
        return_sequences=True,
        return_state=True,
        go_backwards=backwards,
        zero_output_for_mask=problem.lengths is not None,
        unroll=problem.shape.steps == 1,
    )


def make_model(problem: Problem) -> tuple[keras.Model, list[np.ndarray]]:
    """The model, batch first, and what it takes: x, then the mask, or the state of a stream."""
    shape, given = problem.shape, [batch_first(problem.x)]
    if problem.lengths is not None:
        given.append(np.arange(shape.steps) < problem.lengths[:, None])
    if shape.steps == 1:
        given += [problem.h_0[0], problem.c_0[0]]
    places = [keras.Input(batch_shape=array.shape, dtype=array.dtype.name) for array in given]
    x, layers, states = places[0], [], []
    more = {"mask": places[1]} if problem.lengths is not None else {}
    more |= {"initial_state": places[1:]} if shape.steps == 1 else {}
    for _ in range(shape.layers):
        ys = []
        for direction in range(shape.directions):
            layers.append(lstm_layer(problem, direction == 1))
            y, h, c = layers[-1](x, **more)
            ys.append(keras.ops.flip(y, axis=1) if direction else y)
            states.append((h, c))
        x = keras.layers.Concatenate()(ys) if len(ys) > 1 else ys[0]
    for layer, (ending, _) in zip(layers, shape.cells, strict=True):
        w_ih, w_hh, bias = (problem.weights[n + ending] for n in ("weight_ih", "weight_hh", "bias"))
        layer.set_weights([w_ih.T, w_hh.T, bias])
    return keras.Model(places, [x, *(part for state in states for part in state)]), given


def batch_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.swapaxes(0, 1))


def arrays(result) -> dict[str, np.ndarray]:
    y, *states = map(np.asarray, result)
    return {"y": y.swapaxes(0, 1), "h_n": np.stack(states[::2]), "c_n": np.stack(states[1::2])}


def inference(problem: Problem) -> dict:
    run = step if problem.shape.steps == 1 else whole
    return {
        "tf.function": partial(run, problem, jit_compile=False),
        "tf.function, XLA": partial(run, problem, jit_compile=True),
    } | ({} if run is step else {"predict_on_batch": partial(predict_on_batch, problem)})


def compiled_model(problem: Problem, jit_compile: bool):
    model, given = make_model(problem)
    function = tf.function(lambda *inputs: model(list(inputs)), jit_compile=jit_compile)
    tensors = [tf.constant(array) for array in given]
    return function.get_concrete_function(*tensors), tensors


def whole(problem: Problem, jit_compile: bool) -> Way:
    function, tensors = compiled_model(problem, jit_compile)
    return Way(partial(function, *tensors), arrays)


def step(problem: Problem, jit_compile: bool) -> Way:
    function, (x, h, c) = compiled_model(problem, jit_compile)

    def call():
        nonlocal h, c
        y, h, c = function(x, h, c)
        return y

    return Way(call, lambda y: {"y": np.swapaxes(y, 0, 1)})


def predict_on_batch(problem: Problem) -> Way:
    model, given = make_model(problem)
    return Way(partial(model.predict_on_batch, given), arrays)
