"""Zip archives: of PyTorch's files, and Keras's."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from cylstm.io.files import Budget

__all__ = ["opened", "read_member"]


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
