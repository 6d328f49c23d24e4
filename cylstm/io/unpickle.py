"""Pickles, read as data: nothing in them is imported, made or called.

A pickle is a program for a small stack machine, and Python's own machine calls what the program
names. This one builds lists, pairs and numbers alone. It knows the few functions by which tensors
are stored and, as data, the containers around them. An object of any other class becomes an
`Instance`, which holds what the pickle gives it and does nothing. Where a pickle calls what no
honest file of weights does, such as ``os.system``, that is an error which names it.

Dictionaries come as `Pairs`, so that no key of the file is ever hashed.

The opcodes: the comments of Python's ``pickletools``. The functions: ``torch/_utils.py`` of
PyTorch.
"""

from __future__ import annotations

import os
import pickletools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

__all__ = ["Instance", "Name", "Pairs", "Stored", "load"]


@dataclass(repr=False, eq=False, slots=True)
class Pairs:
    """The items of a dictionary, in order; whether they are pairs, nobody has checked."""

    items: list[Any] = field(default_factory=list)


@dataclass(repr=False, eq=False, slots=True)
class Instance:
    """An object of a class that is not known here: what the pickle gives it, and nothing else."""

    kind: str  # what makes it, module and name: "datetime date"
    arguments: Any = ()
    state: Any = None
    items: Pairs | None = None  # where it is also a dictionary

    @property
    def attributes(self) -> Pairs:
        """What the pickle puts into the object's ``__dict__``."""
        return self.state if isinstance(self.state, Pairs) else Pairs()

    def __repr__(self) -> str:
        return f"an object of {self.kind.replace(' ', '.')[:80]}"


@dataclass(repr=False, eq=False, slots=True)
class Stored:
    """A tensor as the pickle tells of it: where in which storage it lies. Nothing is checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any
    quantizer: Any = None  # what makes numbers of a quantised tensor's integers


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the pickle names, by its name alone."""

    text: str


def _pairs(items: Any = None) -> Pairs:
    # Not a copy of the items: a short program could ask for many copies of a long list.
    return Pairs(items) if isinstance(items, list) else Pairs()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_about_gradients: Any) -> Stored:
    return Stored(storage, offset, size, stride)


def _quantised(
    storage: Any, offset: Any, size: Any, stride: Any, quantizer: Any, *_about_gradients: Any
) -> Stored:
    return Stored(storage, offset, size, stride, quantizer)


def _first(value: Any = (), *_more: Any) -> Any:
    return value


def _of_type(function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    """Return a tensor that has attributes of its own, without them."""
    rebuild = _KNOWN.get(function.text)
    if rebuild in (None, _of_type):  # no file wraps one in another: it could do so without end
        return Instance(function.text, arguments)
    return rebuild(*arguments)


# What a pickle may call, and what that call gives here, where it is not an `Instance`.
_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor,  # of element types that have no storage class
    "torch._utils _rebuild_qtensor": _quantised,
    "torch._utils _rebuild_parameter": _first,
    "torch._utils _rebuild_parameter_with_state": _first,
    "torch._tensor _rebuild_from_type": _of_type,
    "torch._tensor _rebuild_from_type_v2": _of_type,
    "torch.jit._pickle build_intlist": _first,
    "torch.jit._pickle build_doublelist": _first,
    "torch.jit._pickle build_boollist": _first,
    "torch.jit._pickle build_tensorlist": _first,
    "torch.jit._pickle restore_type_tag": _first,
    "torch Size": _first,
    "torch device": _first,
    "collections OrderedDict": _pairs,
    "collections defaultdict": lambda *_: Pairs(),
    "builtins set": _first,
    "builtins frozenset": _first,
    "__builtin__ set": _first,
    "__builtin__ frozenset": _first,
}

# Of Python's own library, what makes plain values. All else in it is refused by name; of other
# libraries and of the user's programs anything may stand beside weights.
_PLAIN_MODULES = {
    *("argparse", "array", "calendar", "collections", "copyreg", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "inspect", "ipaddress", "logging", "numbers"),
    *("pathlib", "random", "re", "statistics", "string", "time", "types", "typing", "uuid"),
    *("zoneinfo", "_codecs"),
}
_PLAIN_BUILTINS = {
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "getattr", "int", "list"),
    *("object", "range", "slice", "str", "tuple", "xrange"),
}


def _is_plain(text: str) -> bool:
    """Tell whether an honest file may call this."""
    module, _, name = text.partition(" ")
    library = module.partition(".")[0]
    if library in ("builtins", "__builtin__"):
        return name in _PLAIN_BUILTINS
    if library in sys.stdlib_module_names:
        return library in _PLAIN_MODULES
    return library != "torch" or not name.rpartition(".")[2].startswith("load")


def _call(function: Any, arguments: Any) -> Any:
    """Return what stands here for the value of a call."""
    text = function.text
    if text in _KNOWN:
        return _KNOWN[text](*arguments)
    if not _is_plain(text):
        raise ValueError(
            f"the pickle calls {text.replace(' ', '.')[:80]}, which was not run: "
            "expected tensors and plain data"
        )
    return Instance(text, arguments)


_LONGEST_NAME = 1000
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = {  # opcodes that push their own argument
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": Pairs, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}


def load(file: IO[bytes], persistent: Callable[[Any], Any]) -> Any:
    r"""Read one pickle, up to its end and no further.

    Parameters
    ----------
    file : binary file
        At the beginning of a pickle.
    persistent : callable
        What gives the object for a persistent id; for PyTorch, a storage.

    Returns
    -------
    object
        Numbers, strings, lists, tuples, `Pairs`, `Instance`, `Name`, `Stored`, and what
        `persistent` gave.

    Raises
    ------
    ValueError
        If it is no pickle, is damaged, or calls a function that no file of weights needs.

    Examples
    --------
    >>> import io, pickle
    >>> load(io.BytesIO(pickle.dumps({"a": [1, 2.5]})), print).items
    [('a', [1, 2.5])]
    >>> load(io.BytesIO(b"cos\nsystem\n(S'ls'\ntR."), print)
    Traceback (most recent call last):
        ...
    ValueError: the pickle calls os.system, which was not run: expected tensors and plain data
    """
    machine = _Machine(persistent)
    try:
        for opcode, argument, _ in pickletools.genops(_Bounded(file)):
            machine.step(opcode.name, argument)
        return machine.pop()
    except (IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"a damaged pickle: {error!r}") from None


class _Bounded:
    """A file of which no more is asked than it has: others take memory for it at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self.tell, self.readline = file.tell, file.readline
        self._file = file
        begin = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(begin)

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._end - self._file.tell()))


class _Machine:
    """The stack machine. A wrong program makes it fail as Python's lists and tuples fail."""

    def __init__(self, persistent: Callable[[Any], Any]) -> None:
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack[-_TUPLES[name] :] = [tuple(self.stack[-_TUPLES[name] :])]
        elif name in _PUT:
            self.memo[argument] = self.stack[-1]
        elif name in _GET:
            self.stack.append(self.memo[argument])
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        elif name == "GLOBAL":
            self.stack.append(Name(argument))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"the pickle holds the instruction {name}, which PyTorch's do not")

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Return all that was pushed since the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def make_tuple(self) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def make_list(self) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def make_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(Pairs(list(zip(items[::2], items[1::2], strict=True))))

    def append(self) -> None:
        item = self.pop()
        self.add([item])

    def appends(self) -> None:
        items = self.pop_mark()
        self.add(items)

    def add(self, items: list[Any]) -> None:
        """Add to the list on top, unless that is an object of a class that is not known."""
        if not isinstance(self.stack[-1], Instance):
            self.stack[-1].extend(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set(((key, value),))

    def set_items(self) -> None:
        items = self.pop_mark()
        self.set(zip(items[::2], items[1::2], strict=True))

    def set(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Add to the pairs on top, or to those of an object that is also a dictionary."""
        top = self.stack[-1]
        if isinstance(top, Instance):
            top = top.items = top.items or Pairs()
        top.items.extend(pairs)

    def persistent_id(self) -> None:
        self.stack.append(self.persistent(self.pop()))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no text")  # whose text might have no end
        if len(module) + len(name) > _LONGEST_NAME:  # a short program could join them many times
            raise TypeError("a name that is too long")
        self.stack.append(Name(f"{module} {name}"))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(_call(function, arguments))

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        made = kind.text == "collections OrderedDict"
        self.stack.append(Pairs() if made else Instance(kind.text, arguments))

    def new_object_by_names(self) -> None:
        self.pop()
        self.new_object()

    def build(self) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Instance):
            self.stack[-1].state = state


_ACTIONS = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "TUPLE": _Machine.make_tuple,
    "LIST": _Machine.make_list,
    "FROZENSET": _Machine.make_list,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BINPERSID": _Machine.persistent_id,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_by_names,
    "BUILD": _Machine.build,
}
