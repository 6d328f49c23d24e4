"""What the readers of foreign files share: their limits, and errors that name the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from reprlib import repr as short  # a hostile name must not fill the screen
from typing import IO, Any

import numpy as np

from cylstm import checks

__all__ = [
    "HDF5",
    "PICKLES",
    "ZIP",
    "Budget",
    "bfloat16",
    "is_path",
    "naming",
    "open_plain",
    "parse_object",
    "pick",
    "read_beside",
    "real",
]

ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"  # how files of these formats begin
PICKLES = (  # how pickles begin, in the protocols since 2 and before
    *(b"\x80", b"(dp", b"(lp", b"}q", b"]q", b"ccollections\n", b"ccopy_reg\n", b"(i"),
)
_LONGEST_MESSAGE = 2000  # characters: names in a file may be of any length
_MOST_LISTED = 20  # candidates in an error message
_TIMES, _FREE = 16, 2**26  # how many bytes of tensors a file may hold: so many times its own, more
_MAX_DIGITS = 20  # of an integer; enough for 64 bits, and read in no time


@contextmanager
def naming(path: Any) -> Iterator[None]:
    """Put the file's name before the message of an error in what it holds."""
    try:
        yield
    except (TypeError, ValueError, KeyError) as error:
        message = str(error.args[0]) if error.args else ""
        raise ValueError(f"{os.fspath(path)}: {message[:_LONGEST_MESSAGE]}") from error


def is_path(source: Any) -> bool:
    """Tell whether a source is the name of a file."""
    return isinstance(source, (str, os.PathLike))


def open_plain(path: Any) -> IO[bytes]:
    """Open a file to be read, but no pipe, which would never end; of a folder say what it is."""
    if not is_path(path):
        raise TypeError(f"path: expected the name of a file, got {short(path)}")
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError(f"{os.fspath(path)}: expected a plain file")
    if os.path.isdir(path):
        from cylstm.io.sight import describe_folder

        describe_folder(path)
    return open(path, "rb")


class Budget:
    """How much memory a file's tensors may take, so that a small file cannot ask for a large one.

    A tensor may be larger than its bytes in the file, where it is compressed, or repeats a value,
    or is widened to float32, and many layers may use one; but not without limit.

    Parameters
    ----------
    size : int
        The size of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._files: set[str] = set()
        self._all = self.left = min(_TIMES * size + _FREE, checks.available_memory())

    def grow(self, path: str, size: int) -> None:
        """Allow for another file of the model, once, however often the model names it."""
        if path not in self._files:
            self._files.add(path)
            more = min(_TIMES * size, max(checks.available_memory() - self._all, 0))
            self._all, self.left = self._all + more, self.left + more

    @classmethod
    def of(cls, left: int) -> Budget:
        """Return one of which so much is left."""
        budget = cls(0)
        budget._all = budget.left = left
        return budget

    def take(self, name: str, nbytes: int) -> None:
        """Count a tensor, or a part of the file that is read whole, before memory is taken.

        Raises
        ------
        ValueError
            If all that was counted is more than the file can honestly hold, or than there is.
        """
        if not 0 <= nbytes <= self.left:
            raise ValueError(
                f"{short(name)}: expected at most {self._all} bytes of tensors in a file of this "
                f"size on this machine, got {short(nbytes)} more than {self._all - self.left}"
            )
        self.left -= nbytes


def read_beside(path: Any, name: str, budget: Budget, begin: int = 0, count: int = -1) -> bytes:
    """Read a file, or a part of it, that belongs to another, and lies in its folder or below.

    Parameters
    ----------
    path : path-like
        The file that names it.
    name : str
        Its path from that file's folder.
    budget : Budget
    begin, count : int
        The part of it; by default all.

    Raises
    ------
    ValueError
        If it lies elsewhere, be it by a link, is no plain file, or ends too early.
    FileNotFoundError
        If it is not there.
    """
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    found = os.path.realpath(os.path.join(folder, name))
    if os.path.isabs(name) or os.path.commonpath([folder, found]) != folder:
        raise ValueError(f"expected a file in the folder of {os.fspath(path)}, got {short(name)}")
    if os.path.exists(found) and not os.path.isfile(found):  # a device or a pipe never ends
        raise ValueError(f"{short(name)}: expected a plain file")
    with open(found, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        count = size - begin if count < 0 else count
        if not 0 <= begin <= begin + count <= size:
            raise ValueError(
                f"{short(name)}: expected {count} bytes from {begin} on, got a file of {size}"
            )
        budget.grow(found, size)
        budget.take(name, count)
        file.seek(begin)
        return file.read(count)


def pick(argument: str, chosen: str | None, found: Iterable[str]) -> str:
    """Return the name of the one LSTM of a file, or of the one of several that the caller names.

    Parameters
    ----------
    argument : str
        What the caller's argument is called, for the message.
    chosen : str, optional
        Its value.
    found : iterable of str
        The names of all LSTMs.
    """
    names = list(found)
    if not names:
        raise ValueError("expected an LSTM, found none")
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen not in names:
        listed = ", ".join(map(repr, names[:_MOST_LISTED]))
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        got = "none" if chosen is None else short(chosen)
        raise ValueError(f"{argument}: expected one of {listed}{more}, got {got}")
    return chosen


def bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 of bfloat16 numbers, which NumPy does not have, given as uint16.

    Examples
    --------
    >>> bfloat16(np.array([0x3F80, 0xC000], np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def parse_object(text: str, what: str, *, nan: bool = False) -> dict[str, Any]:
    """Parse a JSON object more strictly than `json`: no key twice, no endless integer.

    Nor, but with `nan`, NaN and infinities, as Python writes them.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        parsed = dict(pairs)
        if len(parsed) != len(pairs):
            raise ValueError(f"a key stands twice among {short([key for key, _ in pairs])}")
        return parsed

    def constant(name: str) -> float:
        if not nan:
            raise ValueError(f"{name} is not JSON")
        return float(name)

    def limited(digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            raise ValueError(f"an integer of {len(digits)} digits")
        return int(digits)

    try:
        parsed = json.loads(
            text, object_pairs_hook=unique, parse_constant=constant, parse_int=limited
        )
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{what} must be a JSON object, not {short(parsed)}")
    return parsed


def real(name: str, value: Any) -> np.ndarray:
    """Return an array, or a tensor of any framework, as float32, or float64 if it was that.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    """
    if hasattr(value, "detach"):  # PyTorch's, on any device; NumPy knows no bfloat16
        value = value.detach().cpu()
        value = value.dequantize() if getattr(value, "is_quantized", False) else value
        value = value.float() if value.element_size() == 2 else value
    array = checks.is_array(name, value)
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        return array.astype(np.float32)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array.astype(np.result_type(array.dtype.newbyteorder("="), np.float32), copy=False)
