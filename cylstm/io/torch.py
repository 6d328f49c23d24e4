"""LSTMs that PyTorch made, without PyTorch.

A file of ``torch.save`` is a pickle, and raw memory to which the pickle's tensors refer: in a zip
archive, or one after the other in the format before PyTorch 1.6. The pickle is read as data
(`cylstm.io.unpickle`), and of the memory only what the LSTM needs.

The formats: ``torch/serialization.py`` of PyTorch. The names and shapes:
https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
"""

from __future__ import annotations

import functools
import io
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from reprlib import repr as short
from typing import IO, Any

import numpy as np

from cylstm.io import safetensors, unpickle
from cylstm.io.files import Budget, bfloat16, is_path, naming, opened, pick, read_member
from cylstm.io.parts import Cell, assemble, real
from cylstm.lstm import LSTM
from cylstm.options import STANDARD

__all__ = ["from_torch", "state_for_torch"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_DEEPEST = 64  # of dictionaries and modules within each other
_MAX_RANK = 32
_PARTS_OF_MODULES = ("_parameters", "_modules", "_buffers")  # no part of a name in a state dict

_ELEMENTS = {  # of storages: NumPy's types; "V" and the size are those that no LSTM has
    "torch DoubleStorage": "f8",
    "torch FloatStorage": "f4",
    "torch HalfStorage": "f2",
    "torch BFloat16Storage": "u2",  # the bits
    "torch LongStorage": "V8",
    "torch IntStorage": "V4",
    "torch ShortStorage": "V2",
    "torch CharStorage": "V1",
    "torch ByteStorage": "V1",
    "torch BoolStorage": "V1",
    "torch ComplexFloatStorage": "V8",
    "torch ComplexDoubleStorage": "V16",
}

_NAME = re.compile(
    r"(?:(?P<prefix>.*)\.)?(?P<kind>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)"
    r"(?P<ending>_l\d+(?:_reverse)?)?",
    re.DOTALL,
)


def from_torch(
    source: Any,
    prefix: str | None = None,
    *,
    batch_first: bool | None = None,
    forget_bias: float = 0.0,
) -> LSTM:
    """Make an LSTM of a PyTorch one. PyTorch need not be installed, and nothing in a file is run.

    Parameters
    ----------
    source : module, mapping or path-like
        A ``torch.nn.LSTM`` or ``LSTMCell``, or a module that holds some; a state dict of tensors or
        arrays; a file that ``torch.save`` wrote of a state dict, a checkpoint or a module, in any
        of its formats, or TorchScript's; or a safetensors file.
    prefix : str, optional
        Which LSTM of several: what stands before ``.weight_ih_l0``. In a checkpoint the names of
        all dictionaries down to the LSTM belong to it, joined by dots.
    batch_first : bool, optional
        The LSTM's; by default that of the module, and False for other sources, which do not say.
    forget_bias : float, default 0
        Added to the forget gates' biases: 1 for weights of TensorFlow 1's cells, which add it
        whenever they run.

    Returns
    -------
    LSTM
        Of the layers, directions, projection and bias that the names and shapes tell: float64 if
        the weights are, else float32. PyTorch's two biases are summed.

    Raises
    ------
    ValueError
        If there is no LSTM, or several and no `prefix` (the message lists them), or the file is
        damaged, or calls functions.
    TypeError
        If the source is of another kind.
    OSError
        If the file cannot be read.

    See Also
    --------
    LSTM.to_torch : The way back.

    Examples
    --------
    >>> state = cylstm.LSTM(3, 4, num_layers=2, seed=0).state_dict(torch=True)
    >>> cylstm.from_torch({f"encoder.lstm.{name}": array for name, array in state.items()})
    LSTM(3, 4, num_layers=2)
    """
    if is_path(source):
        with _tensors(source) as tensors:
            return _make(tensors, prefix, batch_first, forget_bias)
    if isinstance(source, Mapping):
        return _make(source, prefix, batch_first, forget_bias)
    if not hasattr(source, "state_dict"):
        raise TypeError(
            f"source: expected a module, a state dict or a path, got {type(source).__name__}"
        )
    return _make(source.state_dict(), prefix, batch_first, forget_bias, source)


def state_for_torch(lstm: LSTM) -> dict[str, Any]:
    """Return what `LSTM.to_torch` does."""
    lacking = ("reverse", "peephole", "coupled", "clip")
    changed = [name for name in lacking if lstm.config[name]]
    if lstm._options.activations != STANDARD:
        changed.append("activations")
    if changed:
        raise ValueError(f"{', '.join(changed)}: expected an LSTM as PyTorch has it, got {lstm}")
    state = lstm.state_dict(torch=True)
    try:
        import torch
    except ModuleNotFoundError:
        return state
    return {name: torch.from_numpy(array) for name, array in state.items()}


# Names ----------------------------------------------------------------------------------------


def _make(
    tensors: Mapping[str, Any],
    prefix: str | None,
    batch_first: bool | None,
    forget_bias: float,
    parent: Any = None,
) -> LSTM:
    """Make the LSTM that `prefix` names; a parent module knows what its tensors do not tell."""
    found = _candidates(tensors)
    name = pick("prefix", prefix if prefix is None else prefix.rstrip("."), found)
    own = {key: real(key, tensor) for key, tensor in found[name].items()}
    module = parent and parent.get_submodule(name)
    layers = 0
    while f"weight_ih_l{layers}" in own:
        layers += 1
    bidirectional = "weight_ih_l0_reverse" in own
    cells = [
        _cell(own, f"_l{layer}{direction}")
        for layer in range(layers)
        for direction in ("", "_reverse")[: 1 + bidirectional]
    ]
    if own:
        raise ValueError(f"state dict: expected {layers} layers, got also {short(sorted(own))}")
    return assemble(
        cells,
        forget_bias,
        batch_first=getattr(module, "batch_first", False) if batch_first is None else batch_first,
        bidirectional=bidirectional,
        dropout=getattr(module, "dropout", 0.0),
    )


def _candidates(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tensors of each LSTM, by what stands before their names; a cell as a layer 0."""
    found: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if (match := _NAME.fullmatch(name)) is not None:
            own = found.setdefault(match["prefix"] or "", {})
            own[match["kind"] + (match["ending"] or "_l0")] = tensor
    return {prefix: own for prefix, own in found.items() if _is_lstm(own)}


def _is_lstm(own: Mapping[str, Any]) -> bool:
    """Tell an LSTM, which has four gates, from the GRU and others of the same names."""
    if not {"weight_ih_l0", "weight_hh_l0"} <= own.keys():
        return False
    rows = own["weight_ih_l0"].shape[:1]
    inner = own["weight_hr_l0" if "weight_hr_l0" in own else "weight_hh_l0"].shape[1:]
    return len(inner) == 1 and rows == (4 * inner[0],)


def _cell(own: dict[str, np.ndarray], ending: str) -> Cell:
    """Take the arrays of one direction of one layer out of `own`."""
    for name in ("weight_ih", "weight_hh"):
        if name + ending not in own:
            raise ValueError(f"state dict: expected {name + ending}, got none")
    biases = [own.pop(name + ending, None) for name in ("bias_ih", "bias_hh")]
    given = [bias for bias in biases if bias is not None]
    if given and given[0].shape != given[-1].shape:
        raise ValueError(f"bias_hh{ending}: expected shape {given[0].shape}, got {given[1].shape}")
    return Cell(
        own.pop("weight_ih" + ending),
        own.pop("weight_hh" + ending),
        np.sum(given, axis=0) if given else None,
        own.pop("weight_hr" + ending, None),
    )


# Files ----------------------------------------------------------------------------------------


@contextmanager
def _tensors(path: Any) -> Iterator[Mapping[str, Any]]:
    """Open a file, and lend its tensors by name; those of PyTorch's formats are read when used."""
    with open(path, "rb") as file, naming(path):
        budget = Budget(os.fstat(file.fileno()).st_size)
        start = file.read(9)
        file.seek(0)
        if start.startswith(b"PK\x03\x04"):
            with opened(file) as archive:
                yield _read_zip(archive, budget)
        elif start[8:] == b"{":
            yield safetensors.read(path)[0]
        elif start.startswith(b"\x80"):
            yield _read_legacy(file, budget)
        else:
            raise ValueError(
                "expected a zip archive or a pickle as torch.save writes them, or a safetensors "
                f"file, got one that begins with {start!r}"
            )


def _read_zip(archive: zipfile.ZipFile, budget: Budget) -> dict[str, Tensor]:
    """Read the format since PyTorch 1.6, which TorchScript's files share."""
    names = set(archive.namelist())
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"expected one data.pkl in the archive, got {short(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    order = "<"
    if folder + "byteorder" in names:
        told = read_member(archive, folder + "byteorder", budget)
        if told not in (b"little", b"big"):
            raise ValueError(f"byteorder: expected little or big, got {short(told)}")
        order = "<" if told == b"little" else ">"

    @functools.cache  # tensors that share a storage take it once
    def memory(key: str) -> bytes:
        return read_member(archive, f"{folder}data/{key}", budget)

    def storage(identity: Any) -> Storage:
        return _storage(identity, order, memory)

    content = io.BytesIO(read_member(archive, pickles[0], budget))
    return _named(unpickle.load(content, storage), budget)


def _read_legacy(file: IO[bytes], budget: Budget) -> dict[str, Tensor]:
    """Read the format before: five pickles, then the storages, each after its size.

    The pickles are a number, a version, what the machine was like, the object, and the order of
    the storages.
    """
    storages: dict[str, Storage] = {}
    places: dict[str, tuple[int, int]] = {}
    head = [unpickle.load(file, _refuse) for _ in range(3)]
    if head[:2] != [_LEGACY_MAGIC, _LEGACY_VERSION] or not isinstance(head[2], unpickle.Pairs):
        raise ValueError("expected a file of torch.save, got another pickle")
    order = ">" if ("little_endian", False) in head[2].items else "<"

    @functools.cache
    def memory(key: str) -> bytes:
        position, nbytes = places[key]
        budget.take(key, nbytes)
        file.seek(position)
        return file.read(nbytes)

    def storage(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",):  # a class and its source
            return identity[1]
        made = _storage(identity, order, memory)
        return storages.setdefault(made.key, made) if made.base == 0 else made

    tensors = _named(unpickle.load(file, storage), budget)
    end = os.fstat(file.fileno()).st_size
    for key in unpickle.load(file, _refuse):
        if not isinstance(key, str):  # others may take forever to be looked up
            raise ValueError(f"expected the name of a storage, got {short(key)}")
        count = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        nbytes = count * storages[key].itemsize
        places[key] = file.tell(), nbytes
        if file.tell() + nbytes > end:
            raise ValueError(f"storage {short(key)}: expected {nbytes} bytes, got the file's end")
        file.seek(nbytes, os.SEEK_CUR)
    return tensors


def _refuse(identity: Any) -> Any:
    raise ValueError(f"expected no storage in the file's head, got {short(identity)}")


# Storages and tensors --------------------------------------------------------------------------


@dataclass(repr=False, eq=False)
class Storage:
    """Memory that tensors share."""

    key: str
    kind: str  # of its elements, as the pickle names it: "torch FloatStorage"
    order: str  # of bytes
    base: int  # the element at which it begins in the memory of its key
    memory: Callable[[str], bytes]

    @property
    def itemsize(self) -> int:
        if self.kind not in _ELEMENTS:
            raise ValueError(f"expected a storage of numbers, got {short(self.kind)}")
        return int(_ELEMENTS[self.kind][1:])


def _storage(identity: Any, order: str, memory: Callable[[str], bytes]) -> Storage:
    """Return the storage that a persistent id tells of."""
    mark, kind, key, _device, _count, *view = identity
    if mark != "storage" or not isinstance(key, str):
        raise ValueError(f"expected the id of a storage, got {short(mark)} and {short(key)}")
    base = view[0][1] if view and view[0] is not None else 0
    if not _are_sizes([base]):
        raise ValueError(f"storage {short(key)}: expected a place in another, got {short(base)}")
    return Storage(key, kind.text, order, base, memory)


@dataclass(repr=False, eq=False)
class Tensor:
    """A tensor in a file, which is read when it is made an array."""

    name: str
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    budget: Budget

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read the tensor: an array of its own, in the machine's byte order."""
        kind = self.storage.kind
        if kind not in _ELEMENTS or _ELEMENTS[kind][0] == "V":
            raise TypeError(f"{short(self.name)}: expected real numbers, got {short(kind)}")
        held = np.dtype(self.storage.order + _ELEMENTS[kind])
        self.budget.take(self.name, math.prod(self.shape) * max(held.itemsize, 4))
        begin = self.storage.base + self.offset
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        memory = self.storage.memory(self.storage.key)
        elements = np.frombuffer(memory, held, len(memory) // held.itemsize)
        if 0 in self.shape:
            array = np.zeros(self.shape, held)
        elif begin + last < len(elements):
            steps = [held.itemsize * step for step in self.stride]
            array = np.lib.stride_tricks.as_strided(elements[begin:], self.shape, steps)
        else:
            raise ValueError(
                f"{short(self.name)}: expected a storage of more than {begin + last} elements, "
                f"got {len(elements)}"
            )
        native = array.astype(held.newbyteorder("="))
        return bfloat16(native) if kind == "torch BFloat16Storage" else native


def _tensor(name: str, stored: unpickle.Stored, budget: Budget) -> Tensor:
    """Check what a pickle tells of a tensor."""
    size, stride = stored.size, stored.stride
    if (
        not isinstance(stored.storage, Storage)
        or not _are_sizes([stored.offset])
        or not _are_sizes(size)
        or not _are_sizes(stride)
        or not len(size) == len(stride) <= _MAX_RANK
    ):
        raise ValueError(
            f"{short(name)}: expected a storage, an offset, a shape and strides, got "
            f"{short(stored.storage)}, {short(stored.offset)}, {short(size)} and {short(stride)}"
        )
    steps = tuple(step if n > 1 else 0 for n, step in zip(size, stride, strict=True))
    return Tensor(name, stored.storage, stored.offset, tuple(size), steps, budget)


def _are_sizes(values: Any) -> bool:
    """Tell whether this is a tuple or list of nothing but integers that can count elements."""
    return isinstance(values, (tuple, list)) and all(
        type(value) is int and 0 <= value < 2**48 for value in values
    )


def _named(content: Any, budget: Budget) -> dict[str, Tensor]:
    """Find the tensors in dictionaries within dictionaries, and in modules within modules."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()  # so that what stands in many places is walked once
    todo = [("", content, 0)]
    while todo:
        name, value, depth = todo.pop()
        if isinstance(value, unpickle.Stored):
            found[name] = _tensor(name, value, budget)
        if isinstance(value, unpickle.Instance):
            value = value.attributes
        if not isinstance(value, unpickle.Pairs) or id(value.items) in seen or depth > _DEEPEST:
            continue
        seen.add(id(value.items))
        for pair in value.items:
            key, part = pair
            if key in _PARTS_OF_MODULES:
                todo.append((name, part, depth + 1))
            elif isinstance(key, (str, int)):
                own = f"{name}.{key}" if name else str(key)
                budget.take("names of tensors", len(own))  # many may begin with one long name
                todo.append((own, part, depth + 1))
    return found
