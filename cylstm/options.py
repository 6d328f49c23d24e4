"""The options of recurrent networks, checked, and the parameters that follow from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from cylstm import checks

Activation = str | tuple[str, float, float]
Activations = tuple[Activation, Activation, Activation]

ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid")
STANDARD: Activations = ("sigmoid", "tanh", "tanh")
STEPS = ("gates", "candidate", "output")  # of a cell, that have an activation each
HARD_SIGMOID = (0.2, 0.5)  # slope and offset as ONNX has them

_BYTES_OF_A_CELL = 4096  # what a layer's direction takes beside its parameters, about
_SMALL = 2**26  # bytes, for which nobody asks how many there are


class Shared:
    """What the options of all kinds of cells have, and what follows from them."""

    kind: ClassVar[str]
    gates: ClassVar[int]  # in the weights, of H rows each

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    reverse: bool
    clip: float | None
    dtype: str

    @cached_property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @cached_property
    def output_size(self) -> int:
        """R, the width of one direction's h."""
        return self.hidden_size

    def reads_from_end(self, direction: int) -> bool:
        """Whether this direction processes a sequence from its last step."""
        return self.reverse or direction == 1

    def activations_of(self, direction: int) -> list[tuple[str, float, float]]:
        """A direction's activations of gates, candidate, output, each with slope and offset."""
        raise NotImplementedError

    def layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction of a layer, in PyTorch's order."""
        rows = self.gates * self.hidden_size
        width = self.directions * self.output_size if layer else self.input_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, width),
            "weight_hh": (rows, self.output_size),
        }
        if self.bias:
            shapes["bias"] = (rows,)
        return shapes

    def cells(self) -> Iterator[tuple[str, int, int]]:
        """The name's ending, layer and direction of each, in PyTorch's order."""
        for layer in range(self.num_layers):
            for direction in range(self.directions):
                yield f"_l{layer}{'_reverse' if direction else ''}", layer, direction

    @cached_property
    def endings(self) -> tuple[str, ...]:
        """The names' endings."""
        return tuple(ending for ending, _, _ in self.cells())

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's name and shape, in PyTorch's order."""
        return {
            name + ending: shape
            for ending, layer, _ in self.cells()
            for name, shape in self.layer_shapes(layer).items()
        }

    @property
    def nbytes(self) -> int:
        """How much memory the parameters and what holds them take, known without making any."""
        first, *others = (
            sum(math.prod(shape) for shape in self.layer_shapes(layer).values())
            for layer in range(min(self.num_layers, 2))
        )
        cells, numbers = self.num_layers, first + sum(others) * (self.num_layers - 1)
        return self.directions * (
            numbers * np.dtype(self.dtype).itemsize + cells * _BYTES_OF_A_CELL
        )

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default
        }


@dataclass(frozen=True, eq=False, repr=False)
class Options(Shared):
    """The arguments of `cylstm.LSTM`, in their order; made by `checked_options`."""

    kind = "LSTM"
    gates = 4

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0
    reverse: bool = False
    peephole: bool = False
    coupled: bool = False
    clip: float | None = None
    activations: Any = STANDARD
    forget_bias: float = 1.0
    dtype: str = "float32"

    @cached_property
    def output_size(self) -> int:
        """R, the width of one direction's h."""
        return self.proj_size or self.hidden_size

    def activations_of(self, direction: int) -> list[tuple[str, float, float]]:
        """A direction's activations of gates, candidate, output, each with slope and offset."""
        return _of_direction(self.activations, direction)

    def layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction of a layer, in PyTorch's order."""
        shapes = super().layer_shapes(layer)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        if self.peephole:
            shapes["weight_p"] = (3 * self.hidden_size,)
        return shapes


@dataclass(frozen=True, eq=False, repr=False)
class GRUOptions(Shared):
    """The arguments of `cylstm.GRU`, in their order; made by `checked_gru`."""

    kind = "GRU"
    gates = 3

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    reverse: bool = False
    clip: float | None = None
    activations: Any = STANDARD[:2]
    dtype: str = "float32"

    def activations_of(self, direction: int) -> list[tuple[str, float, float]]:
        """The activations of a direction's gates and candidate; the third is not used."""
        gates, candidate = _of_direction(self.activations, direction)
        return [gates, candidate, candidate]

    def layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction of a layer, in PyTorch's order."""
        shapes = super().layer_shapes(layer)
        if self.bias:
            shapes["bias_hn"] = (self.hidden_size,)
        return shapes


@dataclass(frozen=True, eq=False, repr=False)
class RNNOptions(Shared):
    """The arguments of `cylstm.RNN`, in their order; made by `checked_rnn`."""

    kind = "RNN"
    gates = 1

    input_size: int
    hidden_size: int
    num_layers: int = 1
    nonlinearity: Any = "tanh"
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    reverse: bool = False
    clip: float | None = None
    dtype: str = "float32"

    def activations_of(self, direction: int) -> list[tuple[str, float, float]]:
        """The nonlinearity of a direction; the others are not used."""
        given = self.nonlinearity
        one = given if _is_activation(given) else given[direction]
        return _of_direction((one,), direction) * 3


def _is_activation(given: Any) -> bool:
    """Whether it is one activation, with its slope and offset or without."""
    several = (str, tuple, list)
    return isinstance(given, str) or (len(given) == 3 and not isinstance(given[1], several))


def _of_direction(activations: Any, direction: int) -> list[tuple[str, float, float]]:
    """Of activations, or such of each direction, one direction's, with their slopes and offsets."""
    one = activations if all(map(_is_activation, activations)) else activations[direction]
    return [(a, *HARD_SIGMOID) if isinstance(a, str) else a for a in one]


def checked_options(**given: Any) -> Options:
    """`Options`, every value checked and in its plain type."""
    dtype, directions = _check_shared(given, "peephole", "coupled", proj_size=0)
    given["forget_bias"] = checks.within("forget_bias", given["forget_bias"], dtype)
    if given["proj_size"] >= given["hidden_size"]:
        raise ValueError(
            f"proj_size: expected less than hidden_size ({given['hidden_size']}), "
            f"got {given['proj_size']}"
        )
    given["activations"] = _checked_activations(given["activations"], STEPS, directions, dtype)
    return _with_memory(Options(**given))


def checked_gru(**given: Any) -> GRUOptions:
    """`GRUOptions`, every value checked and in its plain type."""
    dtype, directions = _check_shared(given)
    given["activations"] = _checked_activations(given["activations"], STEPS[:2], directions, dtype)
    return _with_memory(GRUOptions(**given))


def checked_rnn(**given: Any) -> RNNOptions:
    """`RNNOptions`, every value checked and in its plain type."""
    dtype, directions = _check_shared(given)
    nonlinearity = given["nonlinearity"]
    several = isinstance(nonlinearity, (tuple, list)) and len(nonlinearity) == directions
    if several and not _is_activation(nonlinearity):
        given["nonlinearity"] = tuple(
            _checked_activation("nonlinearity", one, dtype) for one in nonlinearity
        )
    else:
        given["nonlinearity"] = _checked_activation("nonlinearity", nonlinearity, dtype)
    return _with_memory(RNNOptions(**given))


def _check_shared(given: dict[str, Any], *flags: str, **sizes: int) -> tuple[np.dtype, int]:
    """Check what all kinds have, and such flags and sizes; return dtype, number of directions."""
    sizes = {"input_size": 1, "hidden_size": 1, "num_layers": 1, **sizes}
    for name, lowest in sizes.items():
        given[name] = checks.whole(name, given[name], lowest)
    for name in ("bias", "batch_first", "bidirectional", "reverse", *flags):
        given[name] = checks.is_true_or_false(name, given[name])
    given["dropout"] = checks.finite("dropout", given["dropout"])
    dtype = checks.floating("dtype", given["dtype"])
    given["dtype"] = dtype.name
    if given["clip"] is not None:
        given["clip"] = checks.finite("clip", given["clip"])
        if given["clip"] <= 0:
            raise ValueError(f"clip: expected a positive number or None, got {given['clip']}")
    if not 0 <= given["dropout"] <= 1:
        raise ValueError(f"dropout: expected a number from 0 to 1, got {given['dropout']}")
    if given["bidirectional"] and given["reverse"]:
        raise ValueError("bidirectional, reverse: expected one of them at most, got both")
    checks.whole("4 * hidden_size", 4 * given["hidden_size"])
    checks.whole("2 * hidden_size (both directions)", 2 * given["hidden_size"])
    return dtype, 2 if given["bidirectional"] else 1


def _with_memory(options: Any) -> Any:
    """Refuse what there is no memory for, before a part of it is made."""
    if options.nbytes > _SMALL and options.nbytes > (available := checks.available_memory()):
        raise MemoryError(
            f"input_size, hidden_size, num_layers: expected parameters of at most {available} "
            f"bytes, which this machine has, got {options.nbytes}"
        )
    return options


def _checked_activations(
    given: Any, steps: tuple[str, ...], directions: int, dtype: np.dtype
) -> Any:
    """Check one activation for each of these steps of a cell, or such of each direction."""
    number = {2: "two", 3: "three"}[len(steps)]
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"activations: expected {number} activations, got {given!r}")
    one_for_each = len(given) == directions and all(
        isinstance(several, (tuple, list)) and len(several) == len(steps) for several in given
    )
    if one_for_each:
        return tuple(_checked_several(several, steps, dtype) for several in given)
    return _checked_several(given, steps, dtype)


def _checked_several(given: Any, steps: tuple[str, ...], dtype: np.dtype) -> tuple[Activation, ...]:
    if len(given) != len(steps):
        several = {2: "pair", 3: "triple"}[len(steps)]
        raise ValueError(
            f"activations: expected ({', '.join(steps)}), or such a {several} for each "
            f"direction, got {given!r}"
        )
    return tuple(_checked_activation("activations", activation, dtype) for activation in given)


def _checked_activation(name: str, given: Any, dtype: np.dtype) -> Activation:
    if isinstance(given, str) and given in ACTIVATIONS:
        return given
    if isinstance(given, (tuple, list)) and len(given) == 3 and given[0] == "hard_sigmoid":
        slope, offset = (checks.within(name, value, dtype) for value in given[1:])
        return "hard_sigmoid", slope, offset
    raise ValueError(
        f"{name}: expected one of {', '.join(ACTIVATIONS)}, "
        f"or ('hard_sigmoid', slope, offset), got {given!r}"
    )


def initialise(name: str, parameter: np.ndarray, options: Shared, rng: np.random.Generator) -> None:
    """Fill a parameter for training.

    Recurrent weights are orthogonal gate by gate [1]_, other weights uniform with the variance of
    Glorot and Bengio [2]_, peepholes zero, biases zero but the forget gate's at `forget_bias` [3]_.

    References
    ----------
    .. [1] A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of
       learning in deep linear neural networks", ICLR 2014.
    .. [2] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
       networks", AISTATS 2010.
    .. [3] R. Jozefowicz, W. Zaremba, I. Sutskever, "An empirical exploration of recurrent network
       architectures", ICML 2015.
    """
    hidden = options.hidden_size
    if name.startswith("weight_hh"):
        q, r = np.linalg.qr(rng.standard_normal((options.gates, hidden, parameter.shape[1])))
        signs = np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)  # makes it uniform
        parameter[...] = (q * signs[:, None, :]).reshape(parameter.shape)
    elif name.startswith(("weight_ih", "weight_hr")):
        rows = hidden if name.startswith("weight_ih") else parameter.shape[0]
        bound = math.sqrt(6 / (rows + parameter.shape[1]))
        parameter[...] = rng.uniform(-bound, bound, parameter.shape)
    else:
        parameter[...] = 0
        if name.startswith("bias") and isinstance(options, Options):
            parameter[hidden : 2 * hidden] = options.forget_bias
