"""ONNX models that are no chains: run node by node, by onnx's reference evaluator.

The LSTM nodes are cylstm's, with their weights packed when the file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as short
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cylstm.formats.chain import Scoring
from cylstm.formats.onnx_file import Graph
from cylstm.formats.onnx_inputs import as_declared, declared
from cylstm.formats.onnx_lstm import Link, Stack, is_lstm, outputs_of
from cylstm.formats.onnx_operators import OPERATORS, check
from cylstm.lstm import LSTM

__all__ = ["Network", "network"]

_DOMAIN = "cylstm"
_DEFECTS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)


class Network(Scoring):
    """A graph that scores.

    It takes its one input as it is, or several by name, as keyword arguments or as a mapping; and
    returns its one output, or a dict of several by name.

    Parameters
    ----------
    model : bytes
        An ONNX model, whose LSTM nodes are of the domain ``cylstm``: ``index`` says which of
        `lstms` runs, with x, the lengths, h_0 and c_0.
    constants : mapping of str to ndarray
        The values that do not depend on the inputs.
    lstms : sequence of LSTM
    inputs : mapping
        The type and the shape of each input, by its name.
    """

    def __init__(
        self,
        model: bytes,
        constants: Mapping[str, np.ndarray],
        lstms: Sequence[LSTM],
        inputs: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._saved = model, constants, lstms, inputs
        self.constants, self.lstms, self.inputs = constants, lstms, inputs
        proto = onnx.ModelProto()
        proto.ParseFromString(model)
        operators = [*OPERATORS, _operator(lstms)]
        self._evaluator: Any = ReferenceEvaluator(proto, new_ops=operators)
        self.outputs: list[str] = list(self._evaluator.output_names)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes it again: the evaluator cannot be pickled."""
        return Network, self._saved

    @property
    def config(self) -> dict[str, Any]:
        """Its inputs and outputs, and the LSTMs."""
        return {"inputs": list(self.inputs), "outputs": self.outputs, "lstms": self.lstms}

    def __call__(self, x: Any = None, /, **named: Any) -> Any:
        """Return the output, or a dict of all outputs by name.

        Parameters
        ----------
        x : ndarray or mapping of str to ndarray, optional
            The one input, or all inputs by name.
        **named
            The inputs by name.
        """
        given = self._given(x, named)
        feed = {name: as_declared(given[name], name, **self.inputs[name]) for name in self.inputs}
        try:
            with np.errstate(all="ignore"):  # infinite numbers are no error in ONNX
                found = self._evaluator.run(None, {**self.constants, **feed})
        except _DEFECTS as error:
            cause = error if error.__cause__ is None else error.__cause__
            raise ValueError(f"the model's graph: {cause}") from error
        made = [np.array(array) for array in found]  # none of which is a constant, or an input
        return made[0] if len(made) == 1 else dict(zip(self.outputs, made, strict=True))

    def _given(self, x: Any, named: dict[str, Any]) -> Mapping[str, Any]:
        if isinstance(x, Mapping):
            named = {**x, **named}
        elif x is not None:
            if named or len(self.inputs) != 1:
                raise TypeError(f"expected the inputs {short(list(self.inputs))} by name")
            return {next(iter(self.inputs)): x}
        if named.keys() != self.inputs.keys():
            raise TypeError(f"expected the inputs {short(list(self.inputs))}, got {list(named)}")
        return named


def _operator(lstms: Sequence[LSTM]) -> type[Any]:
    """Return the operator by which the evaluator runs these LSTMs."""

    class Recurrent(OpRun):
        op_domain = _DOMAIN

        def _run(self, x: Any, lengths: Any, h_0: Any, c_0: Any, index: int = 0) -> Any:
            return outputs_of(lstms[index], x, lengths, h_0, c_0)

    return Recurrent


# Reading ---------------------------------------------------------------------------------------


def network(graph: Graph) -> Network:
    """Return the graph as what scores.

    Raises
    ------
    ValueError
        If a node is not understood, or reads what no node before it makes.
    """
    inputs = declared(graph)
    lstms: list[LSTM] = []
    made = _Rewritten(graph, inputs, lstms)
    made.proto.input.extend(v for v in graph.proto.input if v.name in inputs)
    opsets = [onnx.helper.make_opsetid("", graph.opset), onnx.helper.make_opsetid(_DOMAIN, 1)]
    model = onnx.helper.make_model(made.proto, opset_imports=opsets).SerializeToString()
    try:
        return Network(model, made.constants, lstms, inputs)
    except _DEFECTS as error:
        raise ValueError(f"the model's graph: {error}") from error


class _Rewritten:
    """A graph with cylstm's nodes for the LSTMs, and the constants that it reads beside.

    Parameters
    ----------
    graph : Graph
    known : iterable of str
        The values that are there before its first node.
    lstms : list of LSTM
        Where its LSTMs are put.
    """

    def __init__(self, graph: Graph, known: Iterable[str], lstms: list[LSTM]) -> None:
        self.graph, self.known, self.lstms = graph, set(known), lstms
        self.constants: dict[str, np.ndarray] = {}
        self.proto = onnx.GraphProto(name="graph")
        self.proto.output.extend(graph.proto.output)
        self._unnamed = 0
        for node in graph.nodes:
            try:
                if not all(graph.constant(name) is not None for name in node.output if name):
                    self.proto.node.append(self._node(node))
            except (TypeError, ValueError) as error:
                name = node.name or next(filter(None, node.output), node.op_type)
                raise ValueError(f"node {name!r}: {error}") from error
            self.known.update(name for name in node.output if graph.constant(name) is None)
        for value in graph.proto.output:
            self._look_up(value.name)

    def _look_up(self, name: str) -> None:
        """Keep a constant that is read, and refuse what is not there yet."""
        if not name or name in self.known:
            return
        constant = self.graph.constant(name)
        if constant is None:
            raise ValueError(f"expected {short(name)} to be made by a node before it is used")
        self.constants[name] = constant
        self.known.add(name)

    def _node(self, node: Any) -> Any:
        made = onnx.NodeProto()
        if is_lstm(node):
            link = Link(self.graph, node)
            made.op_type, made.domain = "Recurrent", _DOMAIN
            made.input.extend([link.given(k) for k in (0, 4, 5)])
            made.input.append(link.given(6) if link.kind == "LSTM" else "")
            made.attribute.append(onnx.helper.make_attribute("index", len(self.lstms)))
            self.lstms.append(Stack([link]).lstm())
        else:
            check(self.graph, node)
            made.CopyFrom(node)
            for attribute in made.attribute:
                if attribute.HasField("g"):
                    attribute.g.CopyFrom(self._within(attribute.g))
        for name in made.input:
            self._look_up(name)
        made.ClearField("output")
        made.output.extend([name or self._unused() for name in node.output])
        return made

    def _unused(self) -> str:
        """Return a name for an output that has none: to the evaluator "" is what is not given."""
        self._unnamed += 1
        return f" unused {self._unnamed}"

    def _within(self, proto: Any) -> Any:
        """Return a graph within this one, with its constants in it."""
        if proto.input:
            raise ValueError("expected a graph without inputs in a node, got one with some")
        inner = _Rewritten(self.graph.within(proto), self.known, self.lstms)
        for name, constant in inner.constants.items():
            self.graph.budget.take(name, constant.nbytes)
            inner.proto.initializer.append(onnx.numpy_helper.from_array(constant, name))
        return inner.proto
