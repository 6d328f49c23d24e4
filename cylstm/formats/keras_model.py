"""Keras models as layers that score: chains, and graphs that branch and join.

How a functional model says which layer is fed with what: ``get_config`` of ``Functional`` in Keras
1 to 3. Tensors are named by their layer, by which of its calls made them, and by which of the
call's outputs they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.formats.chain import Chain, Mask, Scoring
from cylstm.formats.keras_config import MODELS, Entry, as_object
from cylstm.formats.keras_joins import Joining
from cylstm.formats.keras_layers import layers_of
from cylstm.formats.keras_ops import OPERATIONS, is_tensor, tensors_of

__all__ = ["Graph", "Step", "model_of"]

_MOST_STEPS = 10_000
_NO_OPTION = {  # of calls: what has no effect
    "training": (None, False),
    "mask": (None, [], [None]),
    "initial_state": (None, []),
    "constants": (None, []),
}

Tensor = tuple[str, int, int]  # layer, call, output


@dataclass
class Step:
    """A layer with the numbers of the values that it takes, and of the one that it makes."""

    layer: Any
    inputs: list[int]
    output: int


class Graph(Scoring):
    """Layers that branch and join.

    It takes its one input as it is, or several by name, as keyword arguments or as a mapping, or as
    a list in the model's order; and returns its one output, or a dict of several by name.

    Parameters
    ----------
    steps : sequence of Step
        In an order in which each finds its inputs made. The model's inputs are the first values.
    inputs : sequence of str
        The names of the inputs.
    outputs : mapping of str to int
        The values that are returned.
    """

    def __init__(
        self, steps: Sequence[Step], inputs: Sequence[str], outputs: Mapping[str, int]
    ) -> None:
        self.steps, self.inputs, self.outputs = list(steps), list(inputs), dict(outputs)

    @property
    def config(self) -> dict[str, Any]:
        """The layers, and the names of the inputs and outputs."""
        return {
            "inputs": self.inputs,
            "outputs": list(self.outputs),
            "layers": [step.layer for step in self.steps],
        }

    def __call__(self, x: Any = None, /, **named: Any) -> Any:
        """Return the output, or a dict of all outputs by name."""
        values: dict[int, tuple[Any, Mask]] = {
            k: (np.asarray(array), None) for k, array in enumerate(self._given(x, named))
        }
        for step in self.steps:
            values[step.output] = _applied(step.layer, [values[k] for k in step.inputs])
        made = {name: values[k][0] for name, k in self.outputs.items()}
        return next(iter(made.values())) if len(made) == 1 else made

    def _given(self, x: Any, named: dict[str, Any]) -> list[Any]:
        """Return the inputs in order."""
        if x is not None and not isinstance(x, Mapping):
            listed = list(x) if isinstance(x, (list, tuple)) and len(self.inputs) > 1 else [x]
            if named or len(listed) != len(self.inputs):
                raise TypeError(f"expected the inputs {short(self.inputs)}, got {len(listed)}")
            return listed
        named = {**(x or {}), **named}
        if named.keys() != set(self.inputs):
            raise TypeError(f"expected the inputs {short(self.inputs)}, got {short(list(named))}")
        return [named[name] for name in self.inputs]


def _applied(layer: Any, given: list[tuple[Any, Mask]]) -> tuple[Any, Mask]:
    """Return a layer's output, and which of its steps count."""
    if isinstance(layer, Joining):
        return layer.join([x for x, _ in given], [mask for _, mask in given])
    ((x, mask),) = given
    return layer.follow(x, mask) if isinstance(layer, Scoring) else (layer(x), mask)


def model_of(entry: Entry) -> Chain | Graph:
    """Return a model as a chain where it is one, else as a graph."""
    inputs = _names_of_inputs(entry)
    builder = _Builder(len(inputs))
    made = builder.model(entry, list(range(len(inputs))))
    outputs = dict(zip(_names_of_outputs(entry), made, strict=True))
    steps = builder.steps
    linear = all(step.inputs == [k] and step.output == k + 1 for k, step in enumerate(steps))
    unique = len({id(step.layer) for step in steps}) == len(steps)
    if linear and unique and steps and len(inputs) == 1 and made == [len(steps)]:
        return Chain(*(step.layer for step in steps))
    if len(outputs) < len(made):
        raise ValueError("output_layers: expected outputs of different names")
    return Graph(steps, inputs, outputs)


def _names_of_inputs(entry: Entry) -> list[str]:
    if entry.kind not in MODELS or entry.kind == "Sequential":
        return ["x"]
    return [name for name, _, _ in _tensors(entry.config.get("input_layers"), "input_layers")]


def _names_of_outputs(entry: Entry) -> list[str]:
    if entry.kind not in MODELS or entry.kind == "Sequential":
        return ["y"]
    outputs = entry.config.get("output_layers")
    if isinstance(outputs, dict):
        return list(outputs)
    return [name for name, _, _ in _tensors(outputs, "output_layers")]


@dataclass
class _Builder:
    """Puts the layers' calls in order, those of models within models too."""

    count: int  # of values so far
    steps: list[Step] = field(default_factory=list)
    _made: dict[int, list[Any]] = field(default_factory=dict)  # what scores a layer, by its id

    def model(self, entry: Entry, inputs: list[int]) -> list[int]:
        """Add the calls of a model, or of a layer; return its outputs."""
        if entry.kind not in MODELS:
            return self._layer(entry, inputs)
        if entry.kind != "Sequential":
            return self._functional(entry, inputs)
        for layer in entry.layers:
            inputs = self.model(layer, inputs)
        return inputs

    def _layer(self, entry: Entry, inputs: list[int]) -> list[int]:
        if id(entry) not in self._made:
            self._made[id(entry)] = list(layers_of(entry))
        for layer in self._made[id(entry)]:
            joins = isinstance(layer, Joining)
            if not layer.takes_inputs(len(inputs)) if joins else len(inputs) != 1:
                wanted = "several inputs" if joins else "one input"
                raise ValueError(f"layer {entry.name!r}: expected {wanted}, got {len(inputs)}")
            if len(self.steps) >= _MOST_STEPS:
                raise ValueError(f"expected at most {_MOST_STEPS} calls of layers")
            self.steps.append(Step(layer, inputs, self.count))
            inputs, self.count = [self.count], self.count + 1
        if len(inputs) != 1:
            raise ValueError(f"layer {entry.name!r}: expected one input, got {len(inputs)}")
        return inputs

    def _functional(self, entry: Entry, inputs: list[int]) -> list[int]:
        layers = {layer.name: layer for layer in entry.layers}
        calls = dict(_calls(entry))
        first = _tensors(entry.config.get("input_layers"), "input_layers")
        if len(first) != len(inputs):
            raise ValueError(
                f"model {entry.name!r}: expected {len(first)} inputs, got {len(inputs)}"
            )
        values: dict[Tensor, int] = dict(zip(first, inputs, strict=True))
        last = _tensors(entry.config.get("output_layers"), "output_layers")
        for name, call in _in_order(calls, last, set(first)):
            made = self.model(layers[name], [values[tensor] for tensor in calls[name, call]])
            values |= {(name, call, k): value for k, value in enumerate(made)}
        used = {(name, call) for name, call, _ in values}
        unused = [name for name, call in calls if (name, call) not in used]
        unused += [name for name, layer in layers.items() if not _is_called(layer, calls)]
        if unused:
            raise ValueError(f"layer {short(unused[0])}: expected it to be used in the model")
        missing = next((tensor for tensor in last if tensor not in values), None)
        if missing is not None:
            raise ValueError(f"layer {short(missing[0])}: expected one output, got several")
        return [values[tensor] for tensor in last]


def _is_called(layer: Entry, calls: Mapping[tuple[str, int], Any]) -> bool:
    return layer.kind == "InputLayer" or (layer.name, 0) in calls


def _in_order(
    calls: Mapping[tuple[str, int], list[Tensor]], last: list[Tensor], known: set[Tensor]
) -> Iterator[tuple[str, int]]:
    """Iterate over the calls that lead to some tensors, each after those that feed it."""
    done = {(name, call) for name, call, _ in known}
    begun: set[tuple[str, int]] = set()
    todo = [(name, call) for name, call, _ in reversed(last)]
    while todo:
        own = todo[-1]
        if own in done:
            todo.pop()
            continue
        if own not in calls:
            raise ValueError(f"layer {short(own[0])}: expected a call {own[1]} of it, got none")
        before = [(name, call) for name, call, _ in calls[own] if (name, call) not in done]
        if not before:
            done.add(todo.pop())
            yield own
        elif own in begun:
            raise ValueError(f"layer {short(own[0])}: expected no circle of layers")
        else:
            begun.add(own)
            todo.extend(before)


# Configurations --------------------------------------------------------------------------------


def _tensors(value: Any, name: str) -> list[Tensor]:
    """Return the tensors in a part of a configuration: one, a list, or a dict of them."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name}: expected tensors of layers, got {short(value)}")
    if isinstance(value[0], str):
        return [_tensor(value)]
    return [_tensor(part) for part in value]


def _tensor(value: Any) -> Tensor:
    """Return what ``[layer, call, output]`` means."""
    if (
        not isinstance(value, list)
        or len(value) < 3
        or not isinstance(value[0], str)
        or not all(type(part) is int for part in value[1:3])
    ):
        raise ValueError(f"expected a layer's name and two numbers, got {short(value)}")
    return value[0], value[1], value[2]


def _calls(model: Entry) -> Iterator[tuple[tuple[str, int], list[Tensor]]]:
    """Iterate over the calls of a model's layers: name and number, and what they are fed with."""
    for layer in model.layers:
        nodes = layer.inbound
        if not isinstance(nodes, list):
            raise ValueError(f"layer {layer.name!r}: expected inbound_nodes, got {short(nodes)}")
        for number, node in enumerate(nodes):
            try:
                if isinstance(node, dict):
                    fed = _of_keras_3(node, layer.kind in OPERATIONS)
                else:
                    fed = _of_keras_2(node)
            except ValueError as error:
                raise ValueError(f"layer {layer.name!r}: {error}") from error
            if fed:  # an InputLayer is fed with nothing
                yield (layer.name, number), fed


def _of_keras_3(node: dict[str, Any], operation: bool) -> list[Tensor]:
    """Return what feeds a call in the words of Keras 3: a layer's first argument."""
    args = node.get("args", [])
    if not isinstance(args, list):
        raise ValueError(f"args: expected a list, got {short(args)}")
    _check_options(node.get("kwargs", {}))
    if not operation:
        if any(value is not None for value in args[1:]):
            raise ValueError(f"expected a call with one argument, got {len(args)}")
        first = args[0] if args and isinstance(args[0], list) else args[:1]
        other = next((part for part in first if not is_tensor(part)), None)
        if other is not None:
            raise ValueError(f"args: expected tensors, got {short(other)}")
    return [_tensor(history) for history in tensors_of(args)]


def _of_keras_2(node: Any) -> list[Tensor]:
    """Return what feeds a call in the words of Keras 1 and 2: ``[[layer, 0, 0, options], ...]``."""
    if not isinstance(node, list):
        raise ValueError(f"inbound_nodes: expected lists, got {short(node)}")
    for tensor in node:
        for options in tensor[3:] if isinstance(tensor, list) else []:
            _check_options(options)
    return [_tensor(tensor) for tensor in node]


def _check_options(options: Any) -> None:
    """Refuse what a call is given beside tensors, where it has an effect."""
    for name, value in as_object(options, "kwargs").items():
        if value not in _NO_OPTION.get(name, ()):
            state = "; from_keras takes the LSTM alone, which takes a state" * (
                name == "initial_state"
            )
            raise ValueError(f"{short(name)}: expected none in the call, got some{state}")
