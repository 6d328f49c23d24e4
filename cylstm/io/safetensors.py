"""The safetensors format with NumPy alone, and cylstm's own models in it.

A file is eight bytes (the length of the header, little-endian), the header (JSON: for each tensor
its type, shape and place; a ``__metadata__`` of strings), and the tensors' bytes, one after the
other. `read` trusts none of it: every size is checked against the file before memory is taken.

The format: https://huggingface.co/docs/safetensors (section "Format").
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from reprlib import repr as short  # a hostile value must not fill the screen
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cylstm import checks
from cylstm.io.files import Budget, bfloat16, open_plain, parse_object
from cylstm.io.writing import check_writable, replacing

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "begins",
    "check",
    "check_model",
    "is_model",
    "read",
    "read_metadata",
    "write",
    "write_model",
]

_CODES = {  # what is written
    np.dtype("<f4"): "F32",
    np.dtype("<f8"): "F64",
    np.dtype("i1"): "I8",
    np.dtype("<u2"): "BF16",  # its bits
}
_DTYPES = {  # what is read
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the bits: NumPy has no such type
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.dtype("?"),
}

_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_MAX_RANK = 32  # dimensions; NumPy 1's limit
_ALIGNMENT = 8  # bytes; the data begins, and so every float64 stands, at a multiple of it

_FORMAT = "cylstm"
_VERSION = "1"
_QUANTIZED = ("QuantizedLSTM", "QuantizedGRU", "QuantizedRNN")
_KINDS = ("LSTM", "GRU", "RNN", *_QUANTIZED, "Sequential")


def begins(start: bytes) -> bool:
    """Tell whether a file that begins with these nine bytes can be of this format."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER


# Any tensors -----------------------------------------------------------------------------------


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[np.floating[Any]]],
    metadata: Mapping[str, str],
) -> None:
    """Write tensors and metadata as one safetensors file, whole or not at all.

    After a failure, `path` is what it was before; see `cylstm.io.writing.replacing`.

    Parameters
    ----------
    path : path-like
        The file; one that is there is replaced.
    tensors : mapping of str to ndarray
        Arrays of float32, float64 or int8, or of uint16, for the bits of bfloat16, which NumPy
        lacks; of any shape, strides and byte order.
    metadata : mapping of str to str
        Anything to be said about the tensors.

    Raises
    ------
    TypeError
        If a name or a metadata entry is not a string, or a tensor of another dtype.
    ValueError
        If a tensor is called ``__metadata__``, or the header passes the format's 100 MB.
    OSError
        If the file cannot be written; the error names it.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "ones.safetensors")
    >>> write(path, {"ones": np.ones((2, 3))}, {"author": "Ada"})
    >>> tensors, metadata = read(path)
    >>> tensors["ones"].shape, metadata
    ((2, 3), {'author': 'Ada'})
    """
    arrays, header = _encode(tensors, metadata)
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for array in arrays.values():
            file.write(array.data)


def check(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[np.floating[Any]]],
    metadata: Mapping[str, str],
    argument: str,
) -> None:
    """Raise what `write` would, as far as it can be known before; change nothing.

    Parameters
    ----------
    path, tensors, metadata
        As for `write`.
    argument : str
        What the caller's argument for `path` is called, for the message.
    """
    _encode(tensors, metadata)
    check_writable(path, argument)


def read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, npt.NDArray[np.floating[Any]]], dict[str, str]]:
    """Read a safetensors file of numbers.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    tensors : dict of str to ndarray
        Arrays of their own: writable, aligned, C-contiguous, in the machine's byte order.
        bfloat16, which NumPy lacks, comes as float32.
    metadata : dict of str to str
        The file's metadata; empty if it has none.

    Raises
    ------
    TypeError
        If `path` is not the name of a file.
    ValueError
        If the file is not such a file; the message names the file and what is wrong in it.
    OSError
        If the file cannot be read.
    """
    with open_plain(path) as file, _naming(path):
        size, header, metadata = _begin(file)
        entries = [_check_entry(name, entry) for name, entry in header.items()]
        _check_places(entries, size - file.tell())
        Budget(size).take("the tensors", size)
        tensors = {entry.name: _read_tensor(file, entry) for entry in _by_place(entries)}
    return {name: tensors[name] for name in header}, metadata


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the metadata alone; it raises what `read` does, as far as the header tells it."""
    with open_plain(path) as file, _naming(path):
        return _begin(file)[2]


# A model ---------------------------------------------------------------------------------------


def write_model(
    path: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, npt.NDArray[np.floating[Any]]],
    example: Any = None,
) -> None:
    """Save a model as one file: its configuration in the metadata of its tensors.

    Parameters
    ----------
    path : path-like
        The file; one that is there is replaced.
    kind : str
        "LSTM", "GRU", "RNN", one of these after "Quantized", or "Sequential".
    config : mapping
        The arguments that build it, which JSON can hold. Tuples come back as lists.
    tensors : mapping of str to ndarray
        Its parameters.
    example : cylstm.selfcheck.Example, optional
        What the file keeps to test itself by.

    Raises
    ------
    TypeError, ValueError
        If JSON cannot hold `config`, or `write` refuses the tensors.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> write_model(path, "LSTM", {"input_size": 1}, {"weight": np.zeros(2)})
    >>> tensors, metadata = read(path)
    >>> check_model(path, metadata), tensors
    (('LSTM', {'input_size': 1}), {'weight': array([0., 0.])})
    """
    encoded = json.dumps(config, allow_nan=False)
    metadata = {"format": _FORMAT, "version": _VERSION, "kind": kind, "config": encoded}
    if example is not None:
        tensors, metadata = {**tensors, **example.tensors}, metadata | example.metadata
    write(path, tensors, metadata)


def is_model(metadata: Mapping[str, str]) -> bool:
    """Tell a model of cylstm's from other files of tensors, by the metadata."""
    return metadata.get("format") == _FORMAT


def check_model(
    path: str | os.PathLike[str], metadata: dict[str, str]
) -> tuple[str, dict[str, Any]]:
    """Return the kind and the configuration that the metadata of a model holds.

    Of the configuration the JSON alone is checked: the model checks the values.

    Raises
    ------
    ValueError
        If it is no model of cylstm's, or from a newer version.
    """
    with _naming(path):
        if not is_model(metadata):
            raise ValueError(
                f"not a cylstm model: its metadata has format {metadata.get('format')!r}, "
                f"{_FORMAT!r} expected"
            )
        if missing := {"version", "kind", "config"} - metadata.keys():
            raise ValueError(f"its metadata lacks {', '.join(sorted(missing))}")
        if metadata["version"] != _VERSION:
            raise ValueError(
                f"file version {metadata['version']!r}, this cylstm reads {_VERSION!r}: "
                "written by a newer cylstm; upgrade"
            )
        kind = metadata["kind"]
        if kind not in _KINDS:
            raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(_KINDS)}")
        return kind, parse_object(metadata["config"], "the configuration")


# Writing ---------------------------------------------------------------------------------------


def _encode(
    tensors: Mapping[str, npt.NDArray[np.floating[Any]]], metadata: Mapping[str, str]
) -> tuple[dict[str, npt.NDArray[Any]], bytes]:
    """Return the tensors as they are stored, in their order, and the header."""
    arrays = {name: _as_storable(name, tensor) for name, tensor in tensors.items()}
    # The widest first, as the safetensors library does: each tensor then stands aligned.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    return arrays, _encode_header(arrays, metadata)


def _as_storable(name: str, tensor: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
    """Return the tensor C-contiguous and little-endian."""
    if not isinstance(name, str):
        raise TypeError(f"a tensor's name must be a str, not {name!r}")
    if name == "__metadata__":
        raise ValueError("a tensor cannot be called '__metadata__'")
    array = checks.as_numpy(name, tensor)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _CODES:
        raise TypeError(
            f"tensor {name!r} must be float32, float64, int8 or bfloat16's uint16, "
            f"not {array.dtype}"
        )
    return np.asarray(array, dtype=dtype, order="C")


def _encode_header(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the header, padded with spaces so that the data after it stands aligned."""
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"metadata must map str to str, not {key!r} to {value!r}")
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    if len(encoded) > _MAX_HEADER:
        raise ValueError(f"a header of {len(encoded)} bytes; the format allows {_MAX_HEADER}")
    return encoded


# Reading ---------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """What the header says of one tensor."""

    name: str
    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _begin(file: BufferedReader) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Read up to the data: return the file's size, the tensors' header, the metadata."""
    size = os.fstat(file.fileno()).st_size
    header = _read_header(file, size)
    return size, header, _check_metadata(header.pop("__metadata__", {}))


def _read_header(file: BufferedReader, size: int) -> dict[str, Any]:
    """Read the header of a file of `size` bytes; leaves the file at its data."""
    if size < 8:
        raise ValueError(f"{size} bytes are too few for a safetensors file")
    length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise ValueError(
            f"a header of {length} bytes in a file of {size} (at most {_MAX_HEADER} allowed): "
            "truncated, or not a safetensors file"
        )
    header = file.read(length)
    if not header.startswith(b"{"):
        raise ValueError("the header does not begin with '{': not a safetensors file")
    return parse_object(header.decode("utf-8"), "the header")


def _check_metadata(metadata: Any) -> dict[str, str]:
    """Return the header's ``__metadata__`` if it maps strings to strings."""
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"__metadata__ must map strings to strings, not {short(metadata)}")
    return metadata


def _check_entry(name: str, entry: Any) -> _Entry:
    """Return the header's entry for one tensor if it makes sense by itself."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(
            f"tensor {short(name)} needs exactly dtype, shape and data_offsets, not {short(entry)}"
        )
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(
            f"tensor {short(name)} has dtype {short(code)}, expected one of {', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[code]
    if not _are_sizes(shape) or len(shape) > _MAX_RANK:
        raise ValueError(f"tensor {short(name)} has no valid shape: {short(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {short(name)} has no valid data_offsets: {short(offsets)}")
    begin, end = offsets
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(
            f"tensor {short(name)} has {short(end - begin)} bytes, which do not fit its "
            f"shape {short(shape)} of {code}"
        )
    # NumPy refuses (0, 2**62, 2**62) too, though it holds nothing.
    if math.prod(extent or 1 for extent in shape) * dtype.itemsize >= 2**63:
        raise ValueError(f"tensor {short(name)} has too large a shape: {short(shape)}")
    return _Entry(name, code, tuple(shape), begin, end)


def _are_sizes(values: Any) -> bool:
    """Tell whether a list holds nothing but integers from 0 (True is none)."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _by_place(entries: list[_Entry]) -> list[_Entry]:
    """Sort the tensors by their place in the data."""
    return sorted(entries, key=lambda entry: (entry.begin, entry.end))


def _check_places(entries: list[_Entry], size: int) -> None:
    """Check that the tensors fill the data's `size` bytes without a hole or an overlap."""
    expected = 0
    for entry in _by_place(entries):
        if entry.begin != expected:
            problem = "overlaps" if entry.begin < expected else "leaves a hole after"
            raise ValueError(
                f"tensor {short(entry.name)} {problem} the tensor before it: it begins at byte "
                f"{short(entry.begin)} of the data, {short(expected)} expected"
            )
        expected = entry.end
    if expected != size:
        raise ValueError(f"the tensors take {short(expected)} bytes, the file has {size} for them")


def _read_tensor(file: BufferedReader, entry: _Entry) -> npt.NDArray[np.floating[Any]]:
    """Read the tensor that the file stands at."""
    array = np.empty(entry.shape, _DTYPES[entry.code])
    if file.readinto(array) != array.nbytes:
        raise ValueError(f"the file ended within tensor {short(entry.name)}")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return bfloat16(native) if entry.code == "BF16" else native
