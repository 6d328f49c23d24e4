"""The problem as an ONNX model, for the libraries that run one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.benchmarks.common import Problem
from benchmarks.peers.libraries import reordered

GATES = "iofg"


def inputs(problem: Problem) -> dict[str, np.ndarray]:
    """What the model takes: x, then the lengths, or the state of a stream."""
    given = {"x": problem.x}
    if problem.lengths is not None:
        given["lengths"] = problem.lengths.astype(np.int32)
    if problem.shape.steps == 1:
        given |= {"h_0": problem.h_0, "c_0": problem.c_0}
    return given


def onnx_model(problem: Problem) -> bytes:
    """One LSTM operator a layer, from `inputs` to y, h_n and c_n."""
    shape, nodes, tensors = problem.shape, [], []
    given = inputs(problem)

    def constant(name: str, array: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(kind: str, sources: list[str], results: list[str], **attributes) -> str:
        nodes.append(helper.make_node(kind, sources, results, **attributes))
        return results[0]

    x, states = "x", []
    for layer in range(shape.layers):
        own = [ending for ending, _ in shape.cells if ending.startswith(f"_l{layer}")]
        w, r, b = (np.stack([reordered(problem.weights[name + e], GATES) for e in own])
                   for name in ("weight_ih", "weight_hh", "bias"))  # fmt: skip
        parameters = {"W": w, "R": r, "B": np.concatenate([b, np.zeros_like(b)], axis=1)}
        names = [constant(f"{key}{layer}", array) for key, array in parameters.items()]
        optional = [name if name in given else "" for name in ("lengths", "h_0", "c_0")]
        results = [f"{key}{layer}" for key in ("Y", "Y_h", "Y_c")]
        direction = "bidirectional" if shape.directions == 2 else "forward"
        node("LSTM", [x, *names, *optional], results,
             hidden_size=shape.hidden_size, direction=direction)  # fmt: skip
        states.append(results[1:])
        x = node("Transpose", [results[0]], [f"turned{layer}"], perm=[0, 2, 1, 3])
        size = constant(f"size{layer}", np.array([0, 0, -1]))
        x = node("Reshape", [x, size], [f"y{layer}"])
    node("Identity", [x], ["y"])
    for name, parts in zip(("h_n", "c_n"), zip(*states, strict=True), strict=True):
        node("Concat", list(parts), [name], axis=0)

    kinds = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("int32"): TensorProto.INT32}
    sources = [helper.make_tensor_value_info(n, kinds[a.dtype], a.shape) for n, a in given.items()]
    sizes = {"y": problem.grad_y.shape, "h_n": problem.h_0.shape, "c_n": problem.c_0.shape}
    targets = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items()]
    graph = helper.make_graph(nodes, "lstm", sources, targets, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
