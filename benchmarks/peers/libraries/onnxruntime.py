"""ONNX Runtime: plain runs, and with inputs and outputs bound once."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import onnxruntime

from benchmarks.benchmarks.common import Problem
from benchmarks.peers.libraries import Way
from benchmarks.peers.libraries.onnx_model import inputs, onnx_model

DISTRIBUTIONS = ["onnxruntime", "onnx"]
OUTPUTS = ["y", "h_n", "c_n"]

options = onnxruntime.SessionOptions()


def set_threads(threads: int) -> None:
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1


def make_session(problem: Problem) -> onnxruntime.InferenceSession:
    model = onnx_model(problem)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def inference(problem: Problem) -> dict:
    if problem.shape.steps == 1:
        return {"run": partial(step, problem), "IOBinding": partial(bound_step, problem)}
    return {"run": partial(whole, problem), "IOBinding": partial(bound, problem)}


def whole(problem: Problem) -> Way:
    session = make_session(problem)
    return Way(
        partial(session.run, OUTPUTS, inputs(problem)), lambda r: dict(zip(OUTPUTS, r, strict=True))
    )


def bound(problem: Problem) -> Way:
    session = make_session(problem)
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in inputs(problem).items()}
    results = {name: empty_like(array) for name, array in output_arrays(problem).items()}
    binding = bind(session, values, results)

    def arrays(_):
        return {name: value.numpy() for name, value in results.items()}

    return Way(partial(session.run_with_iobinding, binding), arrays)


def step(problem: Problem) -> Way:
    session, feeds = make_session(problem), inputs(problem)
    x, h, c = feeds.values()

    def call():
        nonlocal h, c
        y, h, c = session.run(OUTPUTS, {"x": x, "h_0": h, "c_0": c})
        return y

    return Way(call, lambda y: {"y": y})


def bound_step(problem: Problem) -> Way:
    """Two bindings take turns, each reading the state that the other wrote."""
    session = make_session(problem)
    x = onnxruntime.OrtValue.ortvalue_from_numpy(problem.x)
    y = empty_like(problem.grad_y)
    (h, c), (next_h, next_c) = (
        [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in (problem.h_0, problem.c_0)]
        for _ in range(2)
    )
    there = bind(session, {"x": x, "h_0": h, "c_0": c}, {"y": y, "h_n": next_h, "c_n": next_c})
    back = bind(session, {"x": x, "h_0": next_h, "c_0": next_c}, {"y": y, "h_n": h, "c_n": c})
    turns = cycle([there, back])
    return Way(lambda: session.run_with_iobinding(next(turns)), lambda _: {"y": y.numpy()})


def output_arrays(problem: Problem) -> dict:
    return {"y": problem.grad_y, "h_n": problem.h_0, "c_n": problem.c_0}


def empty_like(array) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype)


def bind(session, sources: dict, targets: dict):
    binding = session.io_binding()
    for name, value in sources.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in targets.items():
        binding.bind_ortvalue_output(name, value)
    return binding
