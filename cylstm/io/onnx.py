"""LSTMs and chains in ONNX files, read and written with the onnx package, without a runtime.

The operators: https://onnx.ai/onnx/operators/onnx__LSTM.html, and ``DynamicQuantizeLSTM`` of
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.io.files import Budget, bfloat16, is_path, naming, pick, read_beside
from cylstm.io.fold import FOLDED, VIEWS, attributes
from cylstm.io.parts import Cell, assemble, gates, ordered, real
from cylstm.io.writing import replacing
from cylstm.lstm import LSTM
from cylstm.options import STANDARD

__all__ = ["Graph", "Stack", "from_onnx", "opened", "write_onnx"]

_LSTMS = ("LSTM", "DynamicQuantizeLSTM")
_ORDER = "iofg"  # of the gates' rows, and of the peepholes without g
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

_ACTIVATIONS = {"sigmoid": 0, "tanh": 0, "relu": 0, "hardsigmoid": 2}  # how many numbers each takes
_NAMES = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "hard_sigmoid": "HardSigmoid"}
_PASSED = ("Identity", "Dropout")


def from_onnx(source: Any, node: str | None = None, *, forget_bias: float = 0.0) -> LSTM:
    """Make an LSTM of the LSTM nodes in an ONNX model, which the onnx package reads.

    Nodes of which each feeds the next, as PyTorch exports layers, become one LSTM. Weights may be
    initialisers, external data in the model's folder, or computed from these by operators such as
    Transpose, Slice and Concat. Those of ``com.microsoft.DynamicQuantizeLSTM`` become float32.

    Parameters
    ----------
    source : path-like or ModelProto
    node : str, optional
        Which LSTM of several: the name of its first node, or of its first output where the node
        has no name. Of a later node of several layers it gives the layers from there on.
    forget_bias : float, default 0
        Added to the forget gates' biases.

    Returns
    -------
    LSTM
        With `batch_first` for ``layout=1``. ``initial_h``, ``initial_c`` and ``sequence_lens`` are
        arguments of its call; a warning tells of initial states that the file holds.

    Raises
    ------
    TypeError
        If `source` is neither.
    ValueError
        If there is no LSTM, or several and no `node` (the message lists them), or its weights are
        not constants, or an activation is not cylstm's, or the file is damaged.
    ModuleNotFoundError
        If onnx is not installed.
    OSError
        If the file cannot be read.

    See Also
    --------
    load_model : The whole model.
    LSTM.to_onnx : The way back.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.onnx")
    ...     cylstm.LSTM(3, 4, num_layers=2, bidirectional=True).to_onnx(path)
    ...     cylstm.from_onnx(path)
    LSTM(3, 4, num_layers=2, bidirectional=True)
    """
    if not (is_path(source) or isinstance(source, _library().ModelProto)):
        raise TypeError(f"source: expected a path or a ModelProto, got {type(source).__name__}")
    with naming(source if is_path(source) else "source"):
        found = {stack.name: stack for stack in opened(source).stacks()}
        if node is None and len(found) > 1:
            found = _different(found)
        for stack in list(found.values()):
            if node in stack.names:
                found[node] = Stack(stack.links[stack.names.index(node) :])
        stack = found[pick("node", node, found)]
        lstm, states = stack.lstm(forget_bias), stack.states()
    if any(state is not None and state.any() for state in states):
        warnings.warn(
            f"{stack.name}: the model holds its initial state, an LSTM does not: give it to calls",
            stacklevel=2,
        )
    return lstm


def _different(found: dict[str, Stack]) -> dict[str, Stack]:
    """Leave out LSTMs that are the same as others, as those of an If's two branches may be."""
    kept: dict[str, Stack] = {}
    seen = set()
    for name, stack in found.items():
        lstm = stack.lstm()
        numbers = (sha256(array.tobytes()).digest() for _, array in lstm.named_parameters())
        same = (repr(lstm), *numbers)
        if same not in seen:
            seen.add(same)
            kept[name] = stack
    return kept


def opened(source: Any) -> Graph:
    """Parse a model, a file or a ModelProto, and return its graph."""
    onnx = _library()
    path = source if is_path(source) else None
    if path is not None:
        with open(path, "rb") as file:
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


def _library() -> Any:
    try:
        import onnx
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "ONNX models need onnx: python -m pip install 'cylstm[onnx]'", name="onnx"
        ) from None
    return onnx


# Graphs ----------------------------------------------------------------------------------------


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
        self.producers = {name: node for node in proto.node for name in node.output if name}
        self.uses = Counter(name for node in proto.node for name in node.input)
        self.uses.update(value.name for value in proto.output)
        self.known: dict[str, np.ndarray | None] = {}

    def graphs(self) -> Iterator[Graph]:
        """Iterate over this graph and all graphs within."""
        yield self
        for node in self.proto.node:
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    yield from Graph(inner, self, self.path, self.budget, self.opset).graphs()

    def constant(self, name: str, depth: int = 0) -> np.ndarray | None:
        """Return a value that does not depend on the model's input, or None."""
        if name not in self.known:
            self.known[name] = None  # also where the graph is a circle
            self.known[name] = self._constant(name, depth)
        return self.known[name]

    def _constant(self, name: str, depth: int) -> np.ndarray | None:
        if name in self.tensors:
            return self.array(self.tensors[name])
        node = self.producers.get(name)
        if node is None:
            return self.parent.constant(name, depth) if self.parent is not None else None
        if node.domain not in ("", "ai.onnx") or node.op_type not in FOLDED or depth > _DEEPEST:
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

    def stacks(self) -> list[Stack]:
        """Return the LSTMs of all graphs; those of which each feeds the next are one."""
        found = []
        for graph in self.graphs():
            links = {node.output[0] if node.output else "": Link(graph, node)
                     for node in graph.proto.node if node.op_type in _LSTMS}  # fmt: skip
            before = {name: link.before(links) for name, link in links.items()}
            first = [name for name in links if before[name] is None]
            after = {name: link for link, name in before.items() if name is not None}
            for name in first:
                chain = [links[name]]
                while name in after:
                    name = after[name]
                    chain.append(links[name])
                found.append(Stack(chain))
        return found


# LSTMs -----------------------------------------------------------------------------------------


@dataclass
class Link:
    """An LSTM node."""

    graph: Graph
    node: Any
    attributes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = attributes(self.node, self.graph.array)

    @property
    def name(self) -> str:
        """Its name, or that of what it makes."""
        return self.node.name or next(filter(None, self.node.output), "")

    def given(self, index: int) -> str:
        """Return the name of an input, empty where there is none."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def output(self, index: int) -> str:
        """Return the name of an output, empty where there is none."""
        return self.node.output[index] if index < len(self.node.output) else ""

    def constant(self, index: int, name: str) -> np.ndarray | None:
        """Return an input that must be constant, or None where there is none."""
        if not self.given(index):
            return None
        array = self.graph.constant(self.given(index))
        if array is None:
            raise ValueError(
                f"node {self.name!r}: expected {name} to be constant, got {self.given(index)!r}, "
                "which depends on the model's input"
            )
        return array

    def options(self) -> dict[str, Any]:
        """Return the options of cylstm's LSTM that the attributes tell."""
        given = self.attributes
        direction = given.get("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise ValueError(f"direction: expected one of three, got {short(direction)}")
        triples = _activations(given, 2 if direction == "bidirectional" else 1)
        return {
            "batch_first": bool(given.get("layout", 0)),
            "bidirectional": direction == "bidirectional",
            "reverse": direction == "reverse",
            "coupled": bool(given.get("input_forget", 0)),
            "clip": given.get("clip"),
            "activations": triples[0] if triples[0] == triples[-1] else triples,
        }

    def cells(self) -> list[Cell]:
        """Return the weights of each direction."""
        w, r = self._weights(1, "W", 8), self._weights(2, "R", 10)
        b, p = (self.constant(k, name) for k, name in ((3, "B"), (7, "P")))
        directions = 2 if self.options()["bidirectional"] else 1
        for name, array, rank in (("W", w, 3), ("R", r, 3), ("B", b, 2), ("P", p, 2)):
            if array is not None and (array.ndim != rank or len(array) != directions):
                raise ValueError(f"{name}: expected {directions} directions, got {array.shape}")
        if r.shape[2] != self.attributes.get("hidden_size", r.shape[2]):
            raise ValueError(f"R: expected hidden_size units, got shape {r.shape}")
        return [
            Cell(
                gates(real("W", w[d]), _ORDER),
                gates(real("R", r[d]), _ORDER),
                None if b is None else _bias(real("B", b[d])),
                None,
                None if p is None else gates(real("P", p[d]), _ORDER[:3]),
            )
            for d in range(directions)
        ]

    def _weights(self, index: int, name: str, scale: int) -> np.ndarray:
        """Return W or R; quantised ones are transposed, and have a scale and a zero point."""
        array = self.constant(index, name)
        if array is None:
            raise ValueError(f"{name}: expected weights, got none")
        if self.node.op_type == "LSTM":
            return array
        factor, zero = self.constant(scale, f"{name}_scale"), self.constant(scale + 1, "zero point")
        if factor is None or array.ndim != 3:
            raise ValueError(f"{name}: expected three axes and a scale, got shape {array.shape}")
        shape = (len(array), 1, -1)
        shift = np.zeros(1) if zero is None else zero
        numbers = array.astype(np.float32) - np.float32(1) * shift.reshape(shape)
        return (numbers * factor.reshape(shape)).astype(np.float32).swapaxes(1, 2)

    def before(self, links: dict[str, Link]) -> str | None:
        """Return the first output of the LSTM whose y is this one's x, and nothing else's."""
        graph, name = self.graph, self.given(0)
        folded: list[tuple[str, Any]] = []
        while name in graph.producers and graph.uses[name] == 1:
            if name in links:
                link = links[name]
                one = link.options() == self.options() and _joins(link, self, folded)
                return name if one else None
            node = graph.producers[name]
            if node.op_type not in (*_PASSED, "Transpose", "Reshape", "Squeeze"):
                return None
            if node.op_type not in _PASSED:
                folded.append((node.op_type, node))
            name = node.input[0] if node.input else ""
        return None


def _joins(link: Link, following: Link, between: Sequence[tuple[str, Any]]) -> bool:
    """Tell whether what stands between two LSTMs puts the directions side by side."""
    graph, options = link.graph, link.options()
    if bool(link.given(3)) != bool(following.given(3)):  # biases
        return False
    if bool(link.given(7)) != bool(following.given(7)) or link.given(4) != following.given(4):
        return False
    if link.attributes.get("hidden_size") != following.attributes.get("hidden_size"):
        return False
    axis = 2 if options["batch_first"] else 1  # that of the directions in y
    kinds = [kind for kind, _ in between]
    if kinds == ["Squeeze"] and not options["bidirectional"]:
        node = between[0][1]
        axes = attributes(node, graph.array).get("axes")
        if axes is None and len(node.input) > 1:
            axes = graph.constant(node.input[1])
        return axes is not None and np.ravel(axes).tolist() in ([axis], [axis - 4])
    if kinds == ["Reshape", "Transpose"]:
        perm = attributes(between[1][1], graph.array).get("perm")
        if perm != [0, 2, 1, 3] or options["batch_first"]:
            return False
    elif kinds != ["Reshape"] or not (options["batch_first"] or not options["bidirectional"]):
        return False
    node = between[0][1]
    shape = graph.constant(node.input[1]) if len(node.input) > 1 else None
    width = (1 + options["bidirectional"]) * link.attributes.get("hidden_size", 0)
    return shape is not None and shape.shape == (3,) and shape.tolist()[2] in (-1, width)


def _bias(b: np.ndarray) -> np.ndarray:
    """Sum the two biases of a direction, (8H,)."""
    if b.ndim != 1 or b.size % 8:
        raise ValueError(f"B: expected two biases of four gates, got shape {b.shape}")
    return gates(np.sum(np.split(b, 2), axis=0), _ORDER)


def _activations(given: dict[str, Any], directions: int) -> tuple[Any, ...]:
    """Return the triple of each direction; the numbers are used up in the order of the names."""
    names = given.get("activations") or ["Sigmoid", "Tanh", "Tanh"] * directions
    slopes, offsets = (list(given.get(f"activation_{name}", [])) for name in ("alpha", "beta"))
    if len(names) != 3 * directions:
        raise ValueError(f"activations: expected {3 * directions}, got {short(names)}")
    found: list[Any] = []
    for name in names:
        plain = str(name).lower()
        if plain not in _ACTIVATIONS:
            raise ValueError(
                f"activations: expected Sigmoid, Tanh, Relu or HardSigmoid, got {short(name)}"
            )
        if plain == "hardsigmoid":
            slope = slopes.pop(0) if slopes else 0.2
            offset = offsets.pop(0) if offsets else 0.5
            found.append(("hard_sigmoid", float(slope), float(offset)))
        else:
            found.append(plain)
    return tuple(tuple(found[k : k + 3]) for k in range(0, len(found), 3))


@dataclass
class Stack:
    """LSTM nodes of which each feeds the next."""

    links: list[Link]

    @property
    def names(self) -> list[str]:
        """The nodes' names."""
        return [link.name for link in self.links]

    @property
    def name(self) -> str:
        """That of the first."""
        return self.links[0].name

    def lstm(self, forget_bias: float = 0.0) -> LSTM:
        """Make one LSTM of them."""
        try:
            cells = [cell for link in self.links for cell in link.cells()]
            taken = sum(cell.nbytes for cell in cells)
            self.links[0].graph.budget.take(self.name, taken)  # many nodes may share weights
            return assemble(cells, forget_bias, **self.links[0].options())
        except (TypeError, ValueError) as error:
            raise ValueError(f"node {self.name!r}: {error}") from error

    def states(self) -> list[np.ndarray | None]:
        """Return initial_h and initial_c of each node, where they are constant."""
        return [
            link.graph.constant(link.given(k)) if link.given(k) else None
            for link in self.links
            for k in (5, 6)
        ]


# Writing ---------------------------------------------------------------------------------------

_OPSET, _IR_VERSION = 14, 8  # of 2021, which every runtime in use reads


def write_onnx(lstm: LSTM, path: Any, state: bool) -> None:
    """Do what `LSTM.to_onnx` does."""
    onnx = _library()
    if lstm.proj_size:
        raise ValueError(f"proj_size: expected 0, since ONNX has no projection, got {lstm}")
    writer = _Writer(onnx, lstm)
    x = writer.add("Transpose", ["x"], perm=[1, 0, 2]) if lstm.batch_first else "x"
    ends = []
    for layer in range(lstm.num_layers):
        y, *end = writer.layer(layer, x, state)
        ends.append(end)
        x = writer.side_by_side(y)
    writer.add("Transpose" if lstm.batch_first else "Identity", [x], ["y"],
               **({"perm": [1, 0, 2]} if lstm.batch_first else {}))  # fmt: skip
    for name, parts in zip(("h_n", "c_n"), zip(*ends, strict=True), strict=True):
        writer.add("Concat", parts, [name], axis=0)
    model = writer.model(state)
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as file:
        file.write(model.SerializeToString())


class _Writer:
    """The nodes and the weights of a model, as they are made."""

    def __init__(self, onnx: Any, lstm: LSTM) -> None:
        self.onnx, self.lstm = onnx, lstm
        self.directions = 2 if lstm.bidirectional else 1
        self.kind = onnx.helper.np_dtype_to_tensor_dtype(lstm.dtype)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def add(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add a node, and return the name of its first output."""
        name = f"{kind}_{len(self.nodes)}"
        outputs = outputs or [name]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, outputs, name, **attributes))
        return outputs[0]

    def tensor(self, name: str, array: np.ndarray) -> str:
        """Add weights, and return their name."""
        self.tensors.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def layer(self, layer: int, x: str, state: bool) -> tuple[str, str, str]:
        """Add a layer, and return the names of Y, Y_h and Y_c."""
        lstm, count = self.lstm, self.directions
        endings = [f"_l{layer}", f"_l{layer}_reverse"][:count]

        def stacked(name: str, order: str) -> np.ndarray:
            own = (getattr(lstm, name + ending) for ending in endings)
            return np.stack([ordered(array, order) for array in own])

        inputs = [x, *(self.tensor(f"{name}_l{layer}", stacked(weight, _ORDER))
                       for name, weight in (("W", "weight_ih"), ("R", "weight_hh")))]  # fmt: skip
        bias = ""
        if lstm.bias:
            first = stacked("bias", _ORDER)
            bias = self.tensor(f"B_l{layer}", np.concatenate([first, np.zeros_like(first)], 1))
        inputs += [bias, "", *(self.part(name, layer) if state else "" for name in ("h_0", "c_0"))]
        if lstm.peephole:
            inputs.append(self.tensor(f"P_l{layer}", stacked("weight_p", _ORDER[:3])))
        names = [f"{name}_l{layer}" for name in ("Y", "Y_h", "Y_c")]
        self.add("LSTM", inputs, names, **self.attributes())
        return names[0], names[1], names[2]

    def attributes(self) -> dict[str, Any]:
        """Return those of each LSTM node."""
        lstm = self.lstm
        flags = {"bidirectional": lstm.bidirectional, "reverse": lstm.reverse}
        given: dict[str, Any] = {
            "direction": next((name for name, on in flags.items() if on), "forward"),
            "hidden_size": lstm.hidden_size,
        }
        used = [a for d in range(self.directions) for a in lstm._options.activations_of(d)]
        if any(name != standard for (name, *_), standard in zip(used, STANDARD * 2, strict=False)):
            given["activations"] = [_NAMES[name] for name, _, _ in used]
            numbers = [(slope, offset) for name, slope, offset in used if name == "hard_sigmoid"]
            if numbers:
                given["activation_alpha"], given["activation_beta"] = map(
                    list, zip(*numbers, strict=True)
                )
        return given | {
            name: value
            for name, value in (("clip", lstm.clip), ("input_forget", int(lstm.coupled)))
            if value
        }

    def part(self, name: str, layer: int) -> str:
        """Return a layer's part of the initial state."""
        bounds = [layer * self.directions, (layer + 1) * self.directions]
        at = [self.tensor(f"{name}_{k}_l{layer}", np.array([n])) for k, n in enumerate(bounds)]
        return self.add("Slice", [name, *at])

    def side_by_side(self, y: str) -> str:
        """Bring Y (T, D, N, H) to (T, N, D H)."""
        swapped = self.add("Transpose", [y], perm=[0, 2, 1, 3])
        width = self.directions * self.lstm.hidden_size
        shape = self.tensor(f"shape_{y}", np.array([0, 0, width]))
        return self.add("Reshape", [swapped, shape])

    def model(self, state: bool) -> Any:
        """Return all of it."""
        lstm, helper = self.lstm, self.onnx.helper
        rows = lstm.num_layers * self.directions
        steps = ["N", "T"] if lstm.batch_first else ["T", "N"]
        wide = {
            "x": [*steps, lstm.input_size],
            "y": [*steps, self.directions * lstm.hidden_size],
        } | {name: [rows, "N", lstm.hidden_size] for name in ("h_0", "c_0", "h_n", "c_n")}

        def values(*names: str) -> list[Any]:
            return [helper.make_tensor_value_info(n, self.kind, wide[n]) for n in names]

        given = values("x", *(("h_0", "c_0") if state else ()))
        graph = helper.make_graph(
            self.nodes, "lstm", given, values("y", "h_n", "c_n"), self.tensors
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(
            graph, producer_name="cylstm", ir_version=_IR_VERSION, opset_imports=opset
        )
