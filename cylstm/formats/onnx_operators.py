"""Which ONNX operators a graph may hold, and those that the evaluator lacks or gets wrong.

Of the evaluator's own, those stand here that give ONNX Runtime's numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx.reference.op_run import OpRun
from scipy import special

from cylstm.formats.fold import dequantize
from cylstm.formats.onnx_file import Graph
from cylstm.formats.onnx_lstm import acts
from cylstm.formats.onnx_shapes import kind
from cylstm.layers.activations import gelu

__all__ = ["OPERATORS", "check"]

_FIRST_OPSET = 7  # before, operators repeated arrays in other ways
_EVALUATED = frozenset(
    """
    Abs Add And ArgMax ArgMin BatchNormalization Cast Ceil Clip Concat ConstantOfShape Conv Cos
    CumSum DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    HardSigmoid HardSwish Identity If InstanceNormalization LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow RNN
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape ReverseSequence Round Selu Shape Sigmoid Sign
    Sin Size Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose
    Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905
)
_OF_RECURRENT = {"direction", "hidden_size", "linear_before_reset"}  # what the evaluator acts on
_GRAPHS = (5, 10)  # of AttributeProto.AttributeType


def check(graph: Graph, node: Any) -> None:
    """Refuse a node that would not run as ONNX says.

    Raises
    ------
    ValueError
        If it is of an operator, or has an attribute, an input or an output, that is not understood.
    """
    operator = kind(node)
    if operator not in _EVALUATED:
        raise ValueError(f"operator {operator[:80]!r}: not one that cylstm runs")
    if not _FIRST_OPSET <= graph.opset <= onnx.defs.onnx_opset_version():
        raise ValueError(
            f"opset: expected {_FIRST_OPSET} to {onnx.defs.onnx_opset_version()}, which the onnx "
            f"package {onnx.__version__} knows, got {graph.opset}"
        )
    try:
        schema = onnx.defs.get_schema(operator, graph.opset, "")
    except Exception:  # onnx's own class of errors is not public
        raise ValueError(f"operator {operator!r}: not in opset {graph.opset}") from None
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is None or attribute.ref_attr_name or attribute.type != int(known.type.value):
            raise ValueError(f"attribute {attribute.name[:80]!r} of {operator}: not understood")
        if attribute.HasField("t") and graph.array(attribute.t).size != 1:
            raise ValueError(f"{attribute.name} of {operator}: expected one number")
    missing = {n for n, known in schema.attributes.items() if known.required}
    missing -= {attribute.name for attribute in node.attribute}
    if missing:
        raise ValueError(f"{operator}: expected the attribute {min(missing)!r}, got none")
    for what, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not least <= len(names) <= most:
            raise ValueError(f"{operator}: expected {least} to {most} {what}, got {len(names)}")
    _check_meaning(graph, node, operator)


def _check_meaning(graph: Graph, node: Any, operator: str) -> None:
    """Refuse what the evaluator would pass over without a word."""
    if acts(graph, node):
        raise ValueError("expected a Dropout that passes all on, got one in training")
    if operator == "Dropout" and graph.opset < 12 and any(graph.uses[n] for n in node.output[1:]):
        raise ValueError("expected a Dropout without a mask before opset 12, got a mask")
    given = {attribute.name: attribute for attribute in node.attribute}
    if operator == "BatchNormalization" and "training_mode" in given and given["training_mode"].i:
        raise ValueError("expected a BatchNormalization that scores, got one in training")
    if operator == "BatchNormalization" and any(node.output[1:]):
        raise ValueError("expected a BatchNormalization of one output, got more")
    if operator == "DequantizeLinear" and given.keys() - {"axis"}:
        raise ValueError(f"{operator}: expected none with {min(given.keys() - {'axis'})}")
    if operator in ("GRU", "RNN"):
        odd = given.keys() - _OF_RECURRENT
        if odd or (len(node.input) > 4 and node.input[4]):
            what = min(odd, default="sequence_lens")
            raise ValueError(f"{operator}: expected none with {what}")


def _axis(operator: Any) -> tuple[int, bool]:
    """Return the axis of a softmax, and whether all axes after it belong to it."""
    opset = operator.run_params["opsets"][""]
    given = [a.i for a in operator.onnx_node.attribute if a.name == "axis"]
    return (given or [-1 if opset >= 13 else 1])[0], opset < 13


class Softmax(OpRun):
    """Also as it was before opset 13."""

    function = staticmethod(special.softmax)

    def _run(self, x: np.ndarray, axis: int = -1) -> tuple[np.ndarray]:
        axis, rest = _axis(self)
        if x.size == 0:
            return (x,)
        if not rest:
            return (self.function(x, axis).astype(x.dtype),)
        rows = x.reshape(math.prod(x.shape[: axis % x.ndim if axis < 0 else axis]), -1)
        return (self.function(rows, 1).reshape(x.shape).astype(x.dtype),)


class LogSoftmax(Softmax):
    """Without the logarithm of a number that is rounded to zero."""

    function = staticmethod(special.log_softmax)


class Erf(OpRun):
    """In the precision of its input."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.asarray(special.erf(x), x.dtype),)


class Gelu(OpRun):
    """For all types alike."""

    def _run(self, x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray]:
        return (np.asarray(gelu(x, approximate), x.dtype),)


class BatchNormalization(OpRun):
    """As it scores, in all its versions."""

    def _run(
        self, x: np.ndarray, *stored: np.ndarray, epsilon: float = 1e-5, **_: Any
    ) -> tuple[np.ndarray]:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        scale, bias, mean, variance = (array.reshape(shape) for array in stored)
        made = (x - mean) * (scale / np.sqrt(variance + epsilon)) + bias
        return (made.astype(x.dtype, copy=False),)


class GlobalMaxPool(OpRun):
    """Along all axes but those of the sequences and the channels."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


class DequantizeLinear(OpRun):
    """In the opsets before 19 too."""

    def _run(
        self, x: np.ndarray, scale: np.ndarray, zero: Any = None, axis: int = 1, **_: Any
    ) -> tuple[np.ndarray]:
        return (dequantize({"axis": axis}, x, scale, zero),)


OPERATORS = [Softmax, LogSoftmax, Erf, Gelu, BatchNormalization, GlobalMaxPool, DequantizeLinear]
