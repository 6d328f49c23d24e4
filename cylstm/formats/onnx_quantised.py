"""Products of ONNX that round their input to 8 bits, as products with the weights in float32.

ONNX Runtime's dynamic quantization writes a product as ``MatMulInteger`` of an input that
``DynamicQuantizeLinear`` rounds, and integers for weights; a ``Cast``; and a ``Mul`` with both
scales. Of an LSTM's rounding no more is kept than that of the weights, and so it is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_product"]


def as_product(graph: Any, node: Any) -> Any:
    """Return the MatMul that a Mul of both scales ends; the node itself, where it ends none.

    Parameters
    ----------
    graph : Graph
    node : NodeProto
    """
    found = _parts(graph, node) if node.op_type == "Mul" and not node.domain else None
    if found is None:
        return node
    x, weight = found
    made = type(node)(op_type="MatMul", name=node.name, output=node.output)
    made.input.extend([x, f"{node.output[0]}: weight"])
    graph.budget.take(made.input[1], weight.nbytes)
    graph.known[made.input[1]] = weight
    return made


def _parts(graph: Any, node: Any) -> tuple[str, np.ndarray] | None:
    """Return the name of what is multiplied, and the weights, if it is such a Mul."""
    made = [graph.producers.get(name) for name in node.input]
    cast = next((one for one in made if one is not None and one.op_type == "Cast"), None)
    scales = next((one for one in made if one is not None and one.op_type == "Mul"), None)
    product = graph.producers.get(cast.input[0]) if cast is not None else None
    if product is None or scales is None or product.op_type != "MatMulInteger":
        return None
    rounded = graph.producers.get(product.input[0])
    if rounded is None or rounded.op_type != "DynamicQuantizeLinear":
        return None
    integers, scale, zero = rounded.output
    own = [name for name in scales.input if name != scale]
    if list(product.input[:1]) != [integers] or list(product.input[2:3]) != [zero] or len(own) != 1:
        return None
    weight, factor = graph.constant(product.input[1]), graph.constant(own[0])
    shift = graph.constant(product.input[3]) if len(product.input) > 3 else np.float32(0)
    if weight is None or factor is None or shift is None:
        return None
    numbers = (weight.astype(np.float32) - np.float32(1) * shift) * factor
    return rounded.input[0], numbers.astype(np.float32)
