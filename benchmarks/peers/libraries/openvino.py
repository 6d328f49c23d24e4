"""OpenVINO: the ONNX model compiled for static shapes, its tensors set once."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import numpy as np
import openvino

from benchmarks.benchmarks.common import Problem
from benchmarks.peers.libraries import Way
from benchmarks.peers.libraries.onnx_model import inputs, onnx_model

DISTRIBUTIONS = ["openvino"]
# Without the hint, it would compute in bfloat16 where the CPU can.
settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}


def set_threads(threads: int) -> None:
    settings["INFERENCE_NUM_THREADS"] = threads


def compiled_model(problem: Problem) -> openvino.CompiledModel:
    core = openvino.Core()
    return core.compile_model(core.read_model(onnx_model(problem)), "CPU", settings)


def make_request(model: openvino.CompiledModel, arrays: dict[str, np.ndarray]):
    """A request that reads and writes these very arrays."""
    request = model.create_infer_request()
    for name, array in arrays.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    request.arrays = arrays  # which the tensors do not keep alive
    return request


def empty_outputs(problem: Problem) -> dict[str, np.ndarray]:
    like = {"y": problem.grad_y, "h_n": problem.h_0, "c_n": problem.c_0}
    return {name: np.zeros_like(array) for name, array in like.items()}


def inference(problem: Problem) -> dict:
    if problem.shape.steps == 1:
        return {"infer": partial(step, problem)}
    return {"infer": partial(whole, problem)}


def whole(problem: Problem) -> Way:
    results = empty_outputs(problem)
    request = make_request(compiled_model(problem), {**inputs(problem), **results})
    return Way(request.infer, lambda _: results)


def step(problem: Problem) -> Way:
    """Two requests take turns, each reading the state that the other wrote."""
    model = compiled_model(problem)
    x, h, c = inputs(problem).values()
    y, next_h, next_c = empty_outputs(problem).values()
    there = {"x": x, "h_0": h, "c_0": c, "y": y, "h_n": next_h, "c_n": next_c}
    back = {"x": x, "h_0": next_h, "c_0": next_c, "y": y, "h_n": h, "c_n": c}
    turns = cycle([make_request(model, there).infer, make_request(model, back).infer])
    return Way(lambda: next(turns)(), lambda _: {"y": y})
