"""The shapes of the values in an ONNX graph, as functions of the sizes of its inputs.

Exporters compute the shapes that they give to Reshape from those of other values. Where all that is
known by then is followed here, such a shape turns into constants: a size to keep, or a number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from cylstm.formats.fold import FOLDED, attributes, axes_of, flat, slices

__all__ = ["RECURRENT", "Shapes", "Size", "kind"]

Shape = tuple[Any, ...]  # of int and Size
_MOST_TERMS, _MOST_FACTORS, _MOST_NUMBERS = 16, 8, 64  # so that a small file takes little time
_LARGEST = 2**63
_unknown = itertools.count()  # no two sizes have one number, in whichever graph they are


def kind(node: Any) -> str:
    """Return what a node does: its operator, with the domain if that is not ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


class Size:
    """A whole number that depends on the input: a polynomial in sizes that are not known.

    Parameters
    ----------
    terms : dict
        The coefficient of each product of unknown sizes, which are numbered and in order.

    Examples
    --------
    >>> t, n = Size({(0,): 1}), Size({(1,): 1})
    >>> (t + 1) * n == n * t + n, t - t, t == n
    (True, 0, False)
    """

    __slots__ = ("terms",)

    def __init__(self, terms: dict[tuple[int, ...], int]) -> None:
        self.terms = terms

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same for all inputs."""
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        """Return a number that is the same for equal sizes."""
        return hash(frozenset(self.terms.items()))

    def __add__(self, other: Any) -> Any:
        """Return the sum."""
        terms = dict(self.terms)
        for factors, count in _terms(other).items():
            terms[factors] = terms.get(factors, 0) + count
        return _sized(terms)

    def __mul__(self, other: Any) -> Any:
        """Return the product."""
        terms: dict[tuple[int, ...], int] = {}
        for factors, count in self.terms.items():
            for more, times in _terms(other).items():
                both = tuple(sorted(factors + more))
                terms[both] = terms.get(both, 0) + count * times
        return _sized(terms)

    def __sub__(self, other: Any) -> Any:
        """Return the difference."""
        return self + other * -1

    def __rsub__(self, other: int) -> Any:
        """Return the difference."""
        return self * -1 + other

    __radd__, __rmul__ = __add__, __mul__

    @property
    def counts(self) -> bool:
        """Whether it cannot be negative, as it would be in what is no size."""
        return all(count > 0 for count in self.terms.values())


def _terms(number: Any) -> dict[tuple[int, ...], int]:
    return number.terms if isinstance(number, Size) else {(): int(number)} if number else {}


def _sized(terms: dict[tuple[int, ...], int]) -> Any:
    """Return a number of these terms, an int where nothing is unknown."""
    terms = {factors: count for factors, count in terms.items() if count}
    if len(terms) > _MOST_TERMS or any(
        len(factors) > _MOST_FACTORS or abs(count) >= _LARGEST for factors, count in terms.items()
    ):
        raise ValueError("a size that is far from simple")
    return Size(terms) if terms.keys() - {()} else terms.get((), 0)


def _divided(number: Any, by: Any) -> Any:
    """Return the quotient, rounded towards zero, where it is known."""
    if not isinstance(number, Size) and not isinstance(by, Size):
        return abs(number) // abs(by) * (1 if (number < 0) == (by < 0) else -1)
    if number == by:
        return 1  # a size of zero cannot be divided by
    ((factors, times),) = _terms(by).items()
    found = {}
    for own, count in _terms(number).items():
        rest = list(own)
        for factor in factors:
            rest.remove(factor)
        if count % times:
            raise ValueError("a quotient that is rounded")
        found[tuple(rest)] = count // times
    return _sized(found)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two numbers are equal, where it is known for all inputs."""
    difference = one - other
    if isinstance(difference, Size):
        always = difference if difference.counts else difference * -1
        if not always.counts or () not in always.terms:
            raise ValueError("a comparison that depends on the input")
        return False  # they differ by a size and something more
    return bool(difference == 0)


def _chosen(condition: Any, one: Any, other: Any) -> Any:
    if not isinstance(condition, bool):
        raise TypeError("a condition that depends on the input")
    return one if condition else other


def _elementwise(function: Callable[..., Any], count: int) -> Callable[..., np.ndarray]:
    made = np.frompyfunc(function, count, 1)
    return lambda given, *parts: np.asarray(made(*parts), object)


def _product(given: dict[str, Any], x: np.ndarray, axes: Any = None) -> np.ndarray:
    along = given.get("axes") if axes is None else flat(axes)
    if x.ndim != 1 or along not in (None, [0]):
        raise ValueError("a product along other axes than that of a vector")
    whole = math.prod(x.tolist())
    return np.array([whole] if given.get("keepdims", 1) else whole, object)


_VALUES: dict[str, Callable[..., np.ndarray]] = {
    **{name: FOLDED[name] for name in (
        "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")},
    "Add": _elementwise(lambda a, b: a + b, 2),
    "Div": _elementwise(_divided, 2),
    "Equal": _elementwise(_same, 2),
    "Mul": _elementwise(lambda a, b: a * b, 2),
    "ReduceProd": _product,
    "Sub": _elementwise(lambda a, b: a - b, 2),
    "Where": _elementwise(_chosen, 3),
}  # fmt: skip
_INTEGERS = (6, 7)  # of TensorProto.DataType
_SAME = (
    "Abs BatchNormalization Cast Clip Dropout Elu Erf Exp Gelu HardSigmoid HardSwish Identity "
    "InstanceNormalization LayerNormalization LeakyRelu Log LogSoftmax Mish Neg PRelu Relu Selu "
    "Sigmoid Softmax Softplus Softsign Sqrt Tanh ThresholdedRelu"
)
_BROADCAST = ("Add", "Div", "Equal", "Mul", "Pow", "Sub", "Where")
RECURRENT = frozenset(["LSTM", "GRU", "RNN", "com.microsoft.DynamicQuantizeLSTM"])


class Shapes:
    """The shape of each value in a graph, and the numbers of those that are computed from shapes.

    Parameters
    ----------
    graph : Graph
        One whose nodes stand in the order in which they can be run, as ONNX asks for; it sees what
        is known of the one around it.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._around: Shapes | None = None if graph.parent is None else graph.parent.shapes
        self._shapes: dict[str, Shape] = {}
        self._values: dict[str, np.ndarray] = {}
        for value in graph.proto.input:
            tensor = value.type.tensor_type
            if tensor.HasField("shape"):
                self._shapes[value.name] = tuple(
                    d.dim_value if d.dim_value > 0 else self._fresh() for d in tensor.shape.dim
                )
        for node in graph.nodes:
            self._follow(node)

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a value, or None where it is not known."""
        if name in self._graph.tensors:
            return tuple(self._graph.tensors[name].dims)
        if name in self._shapes or self._around is None:
            return self._shapes.get(name)
        return self._around.shape(name)

    def target(self, node: Any) -> list[int] | None:
        """Return the shape that a Reshape computes, with 0 for a size to keep and -1 for the rest.

        None says that no such shape means the same for all inputs.
        """
        before, wanted = self.shape(node.input[0]), self._value(node.input[1])
        if before is None or wanted is None or wanted.ndim != 1:
            return None
        numbers = wanted.tolist()
        if not all(n.counts if isinstance(n, Size) else n > 0 for n in numbers):
            return None
        try:
            if math.prod(numbers) != math.prod(before):
                return None
        except ValueError:  # too long a product
            return None
        found = [
            (0 if k < len(before) and number == before[k] else -1)
            if isinstance(number, Size)
            else number
            for k, number in enumerate(numbers)
        ]
        return found if found.count(-1) <= 1 else None

    def _fresh(self) -> Size:
        return Size({(next(_unknown),): 1})

    def _value(self, name: str) -> np.ndarray | None:
        """Return the whole numbers of a small value, or None."""
        tensor = self._graph.tensors.get(name)
        if name not in self._values and tensor is None and self._around is not None:
            return self._around._value(name)
        if name in self._values or tensor is None or tensor.data_type not in _INTEGERS:
            return self._values.get(name)
        if not 0 <= math.prod(tensor.dims) <= _MOST_NUMBERS:
            return None
        self._values[name] = self._graph.constant(name).astype(object)
        return self._values[name]

    def _follow(self, node: Any) -> None:
        """Learn what a node makes, if that can be known; a defect is for its reader to tell."""
        defects = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)
        with suppress(*defects):
            value = self._computed(node)
            if value is not None and value.size <= _MOST_NUMBERS:
                self._values[node.output[0]] = value
                self._shapes[node.output[0]] = value.shape
                return
        with suppress(*defects):
            for name, shape in zip(node.output, self._made(node), strict=False):
                self._shapes[name] = tuple(shape)

    def _computed(self, node: Any) -> np.ndarray | None:
        """Return the whole numbers that a node makes of shapes, or None."""
        operator = kind(node)
        if operator not in ("Shape", "Size", "Constant", "Cast", *_VALUES):
            return None
        given = self._attributes(node)
        if operator == "Constant":
            value = FOLDED[operator](given)
            return value.astype(object) if np.asarray(value).dtype.kind in "iu" else None
        if operator in ("Shape", "Size"):
            shape = self.shape(node.input[0])
            if shape is None:
                return None
            part = shape[slice(given.get("start"), given.get("end"))]
            return np.array(part if operator == "Shape" else math.prod(shape), object)
        parts = [self._value(name) if name else None for name in node.input]
        if any(part is None for part, name in zip(parts, node.input, strict=True) if name):
            return None
        if operator == "Cast":
            return parts[0] if given["to"] in _INTEGERS else None
        return np.asarray(_VALUES[operator](given, *parts), object)

    def _attributes(self, node: Any) -> dict[str, Any]:
        return attributes(node, self._graph.array)

    # The shapes of what operators make --------------------------------------------------------

    def _made(self, node: Any) -> Iterator[Sequence[Any]]:
        """Yield the shape of each output, from the first on as far as they are known."""
        operator = kind(node)
        shapes = [self.shape(name) for name in node.input]
        if operator in RECURRENT:
            yield from self._of_recurrent(node, shapes)
        elif operator in _SAME.split() and shapes[0] is not None:
            yield shapes[0]
        elif operator in _BROADCAST:
            yield self._broadcast(shapes)
        elif operator in _RULES:
            yield from _RULES[operator](self, node, *shapes)

    def _of_recurrent(self, node: Any, shapes: list[Any]) -> Iterator[Sequence[Any]]:
        x, _, r = shapes[:3]
        given = {a.name: a for a in node.attribute}
        directions, hidden = r[0], r[1] if kind(node).startswith("com") else r[2]
        if "layout" in given and given["layout"].i:
            yield (x[0], x[1], directions, hidden)
            x = (x[1], x[0], x[2])
            last = (x[1], directions, hidden)
        else:
            yield (x[0], directions, x[1], hidden)
            last = (directions, x[1], hidden)
        yield from (last, last)

    def _broadcast(self, shapes: Sequence[Any]) -> Shape:
        rank = max(map(len, shapes))
        aligned = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
        return tuple(self._common(sizes) for sizes in zip(*aligned, strict=True))

    def _common(self, sizes: Sequence[Any]) -> Any:
        rest = list(dict.fromkeys(size for size in sizes if size != 1))
        numbers = [size for size in rest if isinstance(size, int)]
        return 1 if not rest else rest[0] if len(rest) == 1 else (numbers or [self._fresh()])[0]

    def _transpose(self, node: Any, x: Shape) -> Iterator[Sequence[Any]]:
        yield [x[k] for k in self._attributes(node).get("perm", range(len(x))[::-1])]

    def _reshape(self, node: Any, x: Shape, _: Any) -> Iterator[Sequence[Any]]:
        wanted = self._value(node.input[1])
        if wanted is None:
            return
        keep = not self._attributes(node).get("allowzero", 0)
        found = [
            x[k] if keep and isinstance(n, int) and n == 0 else n
            for k, n in enumerate(wanted.tolist())
        ]
        if -1 in found:
            others = math.prod(n for n in found if not (isinstance(n, int) and n == -1))
            try:
                rest = _divided(math.prod(x), others)
            except ValueError:
                rest = self._fresh()
            found[found.index(-1)] = rest
        yield found

    def _squeeze(self, node: Any, x: Shape, *_: Any) -> Iterator[Sequence[Any]]:
        axes = self._axes(node, 1, len(x))
        yield [size for k, size in enumerate(x) if k not in axes]

    def _unsqueeze(self, node: Any, x: Shape, *_: Any) -> Iterator[Sequence[Any]]:
        given = self._attributes(node).get("axes")
        axes = flat(self._value(node.input[1]) if given is None else given)
        rest = iter(x)
        places = axes_of({}, axes, len(x) + len(axes))
        yield [1 if k in places else next(rest) for k in range(len(x) + len(axes))]

    def _axes(self, node: Any, index: int, rank: int) -> tuple[int, ...]:
        given = self._attributes(node).get("axes")
        return axes_of({}, self._value(node.input[index]) if given is None else given, rank)

    def _gather(self, node: Any, x: Shape, index: Shape) -> Iterator[Sequence[Any]]:
        axis = self._attributes(node).get("axis", 0) % len(x)
        yield [*x[:axis], *index, *x[axis + 1 :]]

    def _concat(self, node: Any, *parts: Shape) -> Iterator[Sequence[Any]]:
        axis = self._attributes(node)["axis"] % len(parts[0])
        whole = list(parts[0])
        whole[axis] = sum((part[axis] for part in parts[1:]), whole[axis])
        yield whole

    def _slice(self, node: Any, x: Shape, *_: Any) -> Iterator[Sequence[Any]]:
        inputs = [self._value(name) if name else None for name in node.input[1:]]
        index = slices(self._attributes(node), len(x), *inputs)
        yield [self._part(size, part) for size, part in zip(x, index, strict=True)]

    def _part(self, size: Any, part: slice) -> Any:
        if isinstance(size, int):
            return len(range(*part.indices(size)))
        whole = part.start in (None, 0) and (part.stop is None or part.stop >= 2**31 - 1)
        return size if whole and part.step in (None, 1) else self._fresh()

    def _expand(self, node: Any, x: Shape, _: Any) -> Iterator[Sequence[Any]]:
        wanted = self._value(node.input[1])
        if wanted is not None:
            yield self._broadcast([x, tuple(wanted.tolist())])

    def _filled(self, node: Any, _: Any) -> Iterator[Sequence[Any]]:
        wanted = self._value(node.input[0])
        if wanted is not None:
            yield wanted.tolist()

    def _flatten(self, node: Any, x: Shape) -> Iterator[Sequence[Any]]:
        axis = self._attributes(node).get("axis", 1)
        axis = axis + len(x) if axis < 0 else axis
        yield [math.prod(x[:axis]), math.prod(x[axis:])]

    def _matmul(self, node: Any, a: Shape, b: Shape) -> Iterator[Sequence[Any]]:
        if len(a) > 1 and len(b) > 1:
            yield [*self._broadcast([a[:-2], b[:-2]]), a[-2], b[-1]]

    def _gemm(self, node: Any, a: Shape, b: Shape, *_: Any) -> Iterator[Sequence[Any]]:
        given = self._attributes(node)
        yield [a[1 if given.get("transA") else 0], b[0 if given.get("transB") else 1]]


_RULES: dict[str, Callable[..., Iterator[Sequence[Any]]]] = {
    "Concat": Shapes._concat,
    "ConstantOfShape": Shapes._filled,
    "Expand": Shapes._expand,
    "Flatten": Shapes._flatten,
    "Gather": Shapes._gather,
    "Gemm": Shapes._gemm,
    "MatMul": Shapes._matmul,
    "Reshape": Shapes._reshape,
    "Slice": Shapes._slice,
    "Squeeze": Shapes._squeeze,
    "Transpose": Shapes._transpose,
    "Unsqueeze": Shapes._unsqueeze,
}
