"""ONNX files: their graphs, who makes each value, and what the constant ones are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.formats.fold import FOLDED, VIEWS, attributes
from cylstm.formats.onnx_quantised import as_product
from cylstm.formats.onnx_shapes import RECURRENT, Shapes, kind
from cylstm.io.files import Budget, bfloat16, is_path, open_plain, read_beside

__all__ = ["Graph", "library", "opened", "read_by"]

_DEEPEST = 64  # of operators between the stored numbers and an LSTM, and of graphs in graphs

_ELEMENTS = {  # of TensorProto.DataType: NumPy's type, and the field where raw_data is not used
    1: ("<f4", "float_data"),
    2: ("<u1", "int32_data"),
    3: ("<i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    16: ("<u2", "int32_data"),  # bfloat16's bits
}
_FLOAT16, _BFLOAT16, _EXTERNAL = 10, 16, 1


def opened(source: Any) -> Graph:
    """Parse a model, a file or a ModelProto, and return its graph."""
    onnx = library()
    path = source if is_path(source) else None
    if path is not None:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            budget = Budget(size)
            budget.take("the model", size)
            content = file.read(size)
        source = onnx.ModelProto()
        try:
            source.ParseFromString(content)
        except Exception as error:  # protobuf's own class of errors is not public
            raise ValueError(f"expected an ONNX model, got {error}") from None
    else:
        budget = Budget(source.ByteSize())
    opset = max((o.version for o in source.opset_import if o.domain in ("", "ai.onnx")), default=1)
    return Graph(source.graph, None, path, budget, opset)


def library() -> Any:
    """Return the onnx package, or say what installs it."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "ONNX models need onnx: python -m pip install 'cylstm[onnx]'", name="onnx"
        ) from None
    return onnx


def read_by(node: Any) -> Iterator[str]:
    """Iterate over the names of the values that a node, or a graph in it, reads."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield from filter(None, node.input)
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                stack.extend(inner.node)
                yield from (value.name for value in inner.output)


class Graph:
    """A graph of the model: who makes each value, and what the constant ones are.

    Parameters
    ----------
    proto : GraphProto
    parent : Graph, optional
        The one around it, whose values it sees.
    path : path-like, optional
        Where the model came from.
    budget : Budget
    opset : int
    """

    def __init__(
        self, proto: Any, parent: Graph | None, path: Any, budget: Budget, opset: int
    ) -> None:
        self.proto, self.parent, self.path, self.budget = proto, parent, path, budget
        self.opset = opset
        self.depth: int = 0 if parent is None else parent.depth + 1
        if self.depth > _DEEPEST:
            raise ValueError(f"expected graphs within graphs to a depth of {_DEEPEST}, got more")
        self.tensors = {tensor.name: tensor for tensor in proto.initializer}
        self.known: dict[str, np.ndarray | None] = {}
        self.nodes = list(proto.node)
        self._count()
        self.nodes = [as_product(self, node) for node in self.nodes]
        self._count()
        self.shapes = Shapes(self)
        self.nodes = [self._with_target(node) for node in self.nodes]
        self.nodes = self._needed()
        self._count()

    def _count(self) -> None:
        """Tell who makes each value, and how often it is used."""
        made = Counter(name for node in self.nodes for name in node.output if name)
        twice = next((name for name, count in made.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"expected each value to be made once, got {short(twice)} again")
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.uses = Counter(name for node in self.nodes for name in read_by(node))
        self.uses.update(value.name for value in self.proto.output)

    def _with_target(self, node: Any) -> Any:
        """Return a Reshape with its shape as a constant, where it is computed from other shapes."""
        if kind(node) != "Reshape" or len(node.input) != 2:
            return node
        if self.constant(node.input[1]) is not None or any(a.i for a in node.attribute):
            return node
        target = self.shapes.target(node)
        if target is None:
            return node
        made = type(node)()
        made.CopyFrom(node)
        made.input[1] = f"{node.output[0]}: shape"
        self.known[made.input[1]] = np.array(target, np.int64)
        return made

    def _needed(self) -> list[Any]:
        """Return the nodes that the outputs or the recurrent ones need."""
        used = {value.name for value in self.proto.output}
        found = []
        for node in reversed(self.nodes):
            within = any(a.HasField("g") or a.graphs for a in node.attribute)
            if within or kind(node) in RECURRENT or not used.isdisjoint(node.output):
                used.update(read_by(node))
                found.append(node)
        return found[::-1]

    def shape(self, name: str) -> tuple[Any, ...] | None:
        """Return the shape of a value, of int and `Size`, or None where it is not known."""
        constant = self.constant(name)
        if constant is not None:
            return constant.shape
        return self.shapes.shape(name)

    def graphs(self) -> Iterator[Graph]:
        """Iterate over this graph and all graphs within."""
        yield self
        for node in self.nodes:
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    yield from self.within(inner).graphs()

    def within(self, proto: Any) -> Graph:
        """Return a graph that is an attribute of one of this one's nodes."""
        return Graph(proto, self, self.path, self.budget, self.opset)

    def constant(self, name: str, depth: int = 0) -> np.ndarray | None:
        """Return a value that does not depend on the model's input, or None."""
        if name not in self.known:
            self.known[name] = None  # also where the graph is a circle
            try:
                self.known[name] = self._constant(name, depth)
            except BaseException:
                del self.known[name]  # the next to ask is told of the defect too
                raise
        return self.known[name]

    def _constant(self, name: str, depth: int) -> np.ndarray | None:
        if name in self.tensors:
            return self.array(self.tensors[name])
        node = self.producers.get(name)
        if node is None:
            return self.parent.constant(name, depth) if self.parent is not None else None
        if kind(node) not in FOLDED or depth > _DEEPEST:
            return None
        inputs = [self.constant(given, depth + 1) if given else None for given in node.input]
        if any(array is None for array, given in zip(inputs, node.input, strict=True) if given):
            return None
        if node.op_type not in VIEWS:  # the others take memory of their own
            self.budget.take(name, sum(array.nbytes for array in inputs if array is not None))
        try:
            folded = FOLDED[node.op_type](attributes(node, self.array), *inputs)
            parts = folded if isinstance(folded, list) else [folded]
            return np.asarray(parts[list(node.output).index(name)])
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise ValueError(f"node {node.name or name!r}: {error}") from None

    def array(self, tensor: Any) -> np.ndarray:
        """Read a tensor, be it in the model or in a file beside it."""
        if tensor.data_type not in _ELEMENTS:
            raise ValueError(f"tensor {short(tensor.name)}: expected numbers, got another type")
        dtype = np.dtype(_ELEMENTS[tensor.data_type][0])
        shape = tuple(tensor.dims)
        if not all(0 <= size <= checks.LARGEST for size in shape) or len(shape) > 32:
            raise ValueError(f"tensor {short(tensor.name)}: expected a shape, got {short(shape)}")
        nbytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        raw = self._bytes(tensor, dtype, nbytes)
        if len(raw) != nbytes:
            raise ValueError(
                f"tensor {short(tensor.name)}: expected {nbytes} bytes for shape {shape}, "
                f"got {len(raw)}"
            )
        array = np.frombuffer(raw, dtype).reshape(shape)
        return bfloat16(array) if tensor.data_type == _BFLOAT16 else array

    def _bytes(self, tensor: Any, dtype: np.dtype[Any], nbytes: int) -> bytes:
        """Return a tensor's memory, wherever it is."""
        if tensor.data_location == _EXTERNAL:
            return self._external(tensor, nbytes)  # which counts it
        self.budget.take(tensor.name, nbytes)
        if tensor.HasField("raw_data"):
            return tensor.raw_data
        wide = np.array(getattr(tensor, _ELEMENTS[tensor.data_type][1]))
        bits = tensor.data_type in (_FLOAT16, _BFLOAT16)
        return wide.astype("<u2" if bits else dtype).tobytes()

    def _external(self, tensor: Any, nbytes: int) -> bytes:
        about = {entry.key: entry.value for entry in tensor.external_data}
        place, name = int(about.get("offset", 0)), about.get("location", "")
        if self.path is None:
            raise ValueError(f"tensor {short(tensor.name)}: expected a path to find {short(name)}")
        if int(about.get("length", nbytes)) != nbytes:
            raise ValueError(
                f"tensor {short(tensor.name)}: expected {nbytes} bytes, got {about['length'][:20]}"
            )
        return read_beside(self.path, name, self.budget, place, nbytes)
