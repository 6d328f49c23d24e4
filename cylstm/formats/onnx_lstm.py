"""The LSTM, GRU and RNN nodes of an ONNX graph, and those of which each feeds the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.formats.fold import attributes
from cylstm.formats.onnx_file import Graph
from cylstm.formats.onnx_shapes import kind
from cylstm.formats.parts import GRU_ORDER, Cell, assemble, gates, gru_cell
from cylstm.io.files import real

__all__ = ["AFTER", "Link", "Stack", "acts", "is_lstm", "outputs_of", "stacks"]

_QUANTISED = "com.microsoft.DynamicQuantizeLSTM"
_INPUTS = {"LSTM": 8, _QUANTISED: 12, "GRU": 6, "RNN": 6}
_ORDER = "iofg"  # of the gates' rows, and of the peepholes without g
_ORDER_OF_GRU = "zrn"
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_ACTIVATIONS = {"sigmoid": 0, "tanh": 0, "relu": 0, "hardsigmoid": 2}  # how many numbers each takes
_PASSED = ("Identity", "Dropout")


@dataclass
class Link:
    """An LSTM node, or a GRU or RNN."""

    graph: Graph
    node: Any
    attributes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = attributes(self.node, self.graph.array)
        most, outputs = _INPUTS[kind(self.node)], 3 if self.kind == "LSTM" else 2
        for what, names, count in (
            ("in", self.node.input, most),
            ("out", self.node.output, outputs),
        ):
            if len(names) > count:
                raise ValueError(
                    f"expected at most {count} {what}puts of an LSTM, got {len(names)}"
                    if self.kind == "LSTM"
                    else f"expected at most {count} {what}puts of {self.kind}, got {len(names)}"
                )

    @property
    def kind(self) -> str:
        """LSTM, GRU or RNN."""
        return "LSTM" if kind(self.node) == _QUANTISED else kind(self.node)

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
        for name in ("input_forget", "layout"):
            if given.get(name, 0) not in (0, 1):
                raise ValueError(f"{name}: expected 0 or 1, got {given[name]}")
        found = _activations(given, self.kind, 2 if direction == "bidirectional" else 1)
        options = {
            "batch_first": bool(given.get("layout", 0)),
            "bidirectional": direction == "bidirectional",
            "reverse": direction == "reverse",
            "clip": given.get("clip"),
        }
        if self.kind == "LSTM":
            options["coupled"] = bool(given.get("input_forget", 0))
        if self.kind == "GRU" and given.get("linear_before_reset", 0) != 1:
            raise ValueError(f"linear_before_reset: {AFTER}")
        if self.kind == "RNN":
            found = tuple(one for (one,) in found)
        options["nonlinearity" if self.kind == "RNN" else "activations"] = (
            found[0] if found[0] == found[-1] else found
        )
        return options

    def cells(self) -> list[Cell]:
        """Return the weights of each direction."""
        w, r = self._weights(1, "W", 8), self._weights(2, "R", 10)
        b = self.constant(3, "B")
        p = self.constant(7, "P") if self.kind == "LSTM" else None
        directions = 2 if self.options()["bidirectional"] else 1
        for name, array, rank in (("W", w, 3), ("R", r, 3), ("B", b, 2), ("P", p, 2)):
            if array is not None and (array.ndim != rank or len(array) != directions):
                raise ValueError(f"{name}: expected {directions} directions, got {array.shape}")
        if r.shape[2] != self.attributes.get("hidden_size", r.shape[2]):
            raise ValueError(f"R: expected hidden_size units, got shape {r.shape}")
        self._check_states(directions, r.shape[2])
        if self.kind != "LSTM":
            return [
                _other_cell(self.kind, w[d], r[d], None if b is None else b[d])
                for d in range(directions)
            ]
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

    def _check_states(self, directions: int, hidden: int) -> None:
        """Refuse initial states of another size, as of an LSTM with a projection."""
        first = bool(self.attributes.get("layout", 0))
        for k, name in ((5, "initial_h"), (6, "initial_c")):
            shape = self.graph.shape(self.given(k)) if self.given(k) else None
            if shape is None:
                continue
            sizes = [shape[1 if first else 0], shape[2]] if len(shape) == 3 else []
            fits = [size == own or not isinstance(size, int)
                    for size, own in zip(sizes, (directions, hidden), strict=False)]  # fmt: skip
            if not (fits and all(fits)):
                wanted = f"(N, {directions}, {hidden})" if first else f"({directions}, N, {hidden})"
                got = ", ".join(str(n) if isinstance(n, int) else "any" for n in shape)
                raise ValueError(f"{name}: expected the shape {wanted} of R's units, got ({got})")

    def _weights(self, index: int, name: str, scale: int) -> np.ndarray:
        """Return W or R; quantised ones are transposed, and have a scale and a zero point."""
        array = self.constant(index, name)
        if array is None:
            raise ValueError(f"{name}: expected weights, got none")
        if kind(self.node) != _QUANTISED:
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
                one = link.kind == self.kind and link.options() == self.options()
                return name if one and _joins(link, self, folded) else None
            node = graph.producers[name]
            if kind(node) not in (*_PASSED, "Transpose", "Reshape", "Squeeze"):
                return None
            if acts(graph, node):
                return None
            if kind(node) not in _PASSED:
                folded.append((node.op_type, node))
            name = node.input[0] if node.input else ""
        return None


AFTER = "expected 1, since r acts on W_h h here, got 0, where it acts on h: a product more a step"


def is_lstm(node: Any) -> bool:
    """Tell whether a node is an LSTM, or a GRU or RNN that cylstm has."""
    if kind(node) == "GRU":
        return any(a.name == "linear_before_reset" and a.i == 1 for a in node.attribute)
    return kind(node) in _INPUTS


def _other_cell(of: str, w: np.ndarray, r: np.ndarray, b: np.ndarray | None) -> Cell:
    """Bring a direction of a GRU or an RNN into cylstm's order; b is its two biases."""
    rows = _GATES[of] * r.shape[1]
    biases = None if b is None else np.split(real("B", b), 2) if b.shape == (2 * rows,) else ()
    if biases == ():
        raise ValueError(f"B: expected two biases of {rows} numbers, got shape {b.shape}")
    if of == "RNN":
        return Cell(real("W", w), real("R", r), None if biases is None else np.sum(biases, axis=0))
    arrays = [real("W", w), real("R", r), *(biases or ())]
    own = [gates(array, _ORDER_OF_GRU, GRU_ORDER) for array in arrays]
    return gru_cell(own[0], own[1], *(own[2:] or (None, None)))


def outputs_of(
    lstm: Any, x: np.ndarray, lengths: Any = None, h_0: Any = None, c_0: Any = None
) -> tuple[np.ndarray, ...]:
    """Return Y, Y_h and Y_c of one or more nodes that this LSTM stands for, with ONNX's axes.

    Of a GRU or an RNN Y and Y_h.

    Parameters
    ----------
    lstm : LSTM, GRU or RNN
    x : ndarray, (T, N, I)
    lengths : ndarray, (N,), optional
    h_0, c_0 : ndarray, (D, N, H), optional
        By default, or where one of the two is None, zero.

    Returns
    -------
    y : ndarray, (T, D, N, H)
    h_n, c_n : ndarray, (D, N, H)
        With `batch_first`, ONNX's ``layout=1``, N comes first in all.
    """
    state: Any = None
    has_c = lstm._network.has_c
    if not has_c and h_0 is not None:
        state = np.asarray(h_0.swapaxes(0, 1) if lstm.batch_first else h_0, lstm.dtype)
    elif h_0 is not None or c_0 is not None:
        zero = np.zeros_like(c_0 if h_0 is None else h_0)
        given = (zero if part is None else part for part in (h_0, c_0))
        state = tuple(
            np.asarray(part.swapaxes(0, 1) if lstm.batch_first else part, lstm.dtype)
            for part in given
        )
    y, after = lstm(np.asarray(x, lstm.dtype), state, lengths)
    ends = after if has_c else (after,)
    y = y.reshape(*y.shape[:2], 2 if lstm.bidirectional else 1, lstm.hidden_size)
    if lstm.batch_first:
        return y, *(part.swapaxes(0, 1) for part in ends)
    return y.swapaxes(1, 2), *ends


def acts(graph: Graph, node: Any) -> bool:
    """Tell whether a node is a Dropout that leaves numbers out, as none does after training."""
    if kind(node) != "Dropout":
        return False
    if graph.opset < 7:
        return not attributes(node, graph.array).get("is_test", 0)
    training = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else False
    return training is None or bool(np.any(training))


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
    if shape is None or shape.shape != (3,) or shape.tolist()[2] not in (-1, width):
        return False
    y = graph.shape(link.output(0)) or (None,) * 4
    kept = [y[0], y[1 if options["batch_first"] else 2]]  # sizes that must stay where they are
    return all(
        wanted in (0, -1, size) or not isinstance(size, int)
        for wanted, size in zip(shape.tolist(), kept, strict=False)
    )


def _bias(b: np.ndarray) -> np.ndarray:
    """Sum the two biases of a direction, (8H,)."""
    if b.ndim != 1 or b.size % 8:
        raise ValueError(f"B: expected two biases of four gates, got shape {b.shape}")
    return gates(np.sum(np.split(b, 2), axis=0), _ORDER)


def _activations(given: dict[str, Any], of: str, directions: int) -> tuple[Any, ...]:
    """Return those of each direction; the numbers are used up in the order of the names."""
    each = len(_DEFAULTS[of])
    names = given.get("activations") or _DEFAULTS[of] * directions
    slopes, offsets = (list(given.get(f"activation_{name}", [])) for name in ("alpha", "beta"))
    if len(names) != each * directions:
        raise ValueError(f"activations: expected {each * directions}, got {short(names)}")
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
    if (slopes or offsets) and any("hard" in str(name).lower() for name in names):
        raise ValueError(
            f"activation_alpha, activation_beta: expected one for each HardSigmoid, got "
            f"{short(slopes + offsets)} more"
        )
    return tuple(tuple(found[k : k + each]) for k in range(0, len(found), each))


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

    def lstm(self, forget_bias: float = 0.0) -> Any:
        """Make one LSTM of them, or a GRU or RNN."""
        try:
            cells = [cell for link in self.links for cell in link.cells()]
            taken = sum(cell.nbytes for cell in cells)
            self.links[0].graph.budget.take(self.name, taken)  # many nodes may share weights
            first = self.links[0]
            return assemble(cells, forget_bias, first.kind, **first.options())
        except (TypeError, ValueError) as error:
            raise ValueError(f"node {self.name!r}: {error}") from error

    def states(self) -> list[np.ndarray | None]:
        """Return initial_h and initial_c of each node, where they are constant."""
        return [
            link.graph.constant(link.given(k)) if link.given(k) else None
            for link in self.links
            for k in ((5, 6) if link.kind == "LSTM" else (5,))
        ]


def _link(graph: Graph, node: Any) -> Link:
    try:
        return Link(graph, node)
    except (TypeError, ValueError) as error:
        name = node.name or next(filter(None, node.output), "")
        raise ValueError(f"node {name!r}: {error}") from error


def stacks(whole: Graph) -> list[Stack]:
    """Return the LSTMs of all graphs; those of which each feeds the next are one."""
    found = []
    for graph in whole.graphs():
        links = {}  # by what each makes first, which may be without a name
        for k, node in enumerate(filter(is_lstm, graph.nodes)):
            links[next(iter(node.output), "") or f" {k}"] = _link(graph, node)
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
