"""What the readers of foreign files share: their limits, and errors that name the file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from reprlib import repr as short  # a hostile name must not fill the screen
from typing import IO, Any

import numpy as np

from cylstm import checks

__all__ = ["Budget", "bfloat16", "is_path", "naming", "opened", "pick", "read_member"]

_MOST_LISTED = 20  # candidates in an error message


@contextmanager
def naming(path: Any) -> Iterator[None]:
    """Put the file's name before the message of an error in what it holds."""
    try:
        yield
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)}: {error.args[0] if error.args else ''}") from error


def is_path(source: Any) -> bool:
    """Tell whether a source is the name of a file."""
    return isinstance(source, (str, os.PathLike))


class Budget:
    """How much memory a file's tensors may take, so that a small file cannot ask for a large one.

    A tensor may be larger than its bytes in the file, where it is compressed, or repeats a value,
    or is widened to float32; but not without limit.

    Parameters
    ----------
    size : int
        The size of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = self._all = min(4 * size + 2**26, _available_memory())

    def take(self, name: str, nbytes: int) -> None:
        """Count a tensor, or a part of the file that is read whole, before memory is taken.

        Raises
        ------
        ValueError
            If all that was counted is more than the file can honestly hold, or than there is.
        """
        if not 0 <= nbytes <= self._left:
            raise ValueError(
                f"{short(name)}: expected at most {self._all} bytes of tensors in a file of this "
                f"size on this machine, got {short(nbytes)} more than {self._all - self._left}"
            )
        self._left -= nbytes


def _available_memory() -> int:
    """Return how many bytes can be had without swapping; where no one tells, any number."""
    try:
        with open("/proc/meminfo", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file)
        return int(fields[b"MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return checks.LARGEST**2


@contextmanager
def opened(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive, whose defects are all a ValueError."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"a damaged zip archive: {error}") from None


def read_member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """Read one file of an archive, as it was stored; its checksum is checked.

    Raises
    ------
    ValueError
        If it is not there, or compressed: those who write models store them, so what it takes is
        never more than the archive's own size.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"expected {name!r} in the archive, got none") from None
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{name!r}: expected to be stored as it is, got it compressed")
    budget.take(name, info.file_size)
    content = archive.read(info)
    if len(content) != info.file_size:
        raise ValueError(f"{name!r}: expected {info.file_size} bytes, got {len(content)}")
    return content


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
