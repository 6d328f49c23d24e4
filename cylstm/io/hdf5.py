"""HDF5 files as Keras writes them, read by h5py: arrays and texts that lie in the file itself.

HDF5 can refer to other files: by external links, by external storage, and by virtual datasets. None
is followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from reprlib import repr as short
from typing import IO, Any

import numpy as np

from cylstm.io.files import Budget, bfloat16
from cylstm.io.parts import real

__all__ = ["Hdf5", "opened"]

_MOST_VARIABLES = 64  # of a layer


@contextmanager
def opened(file: IO[bytes], budget: Budget) -> Iterator[Hdf5]:
    """Open a file, whose defects are all a ValueError."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Keras's files need h5py: python -m pip install 'cylstm[keras]'", name="h5py"
        ) from None
    try:
        with h5py.File(file, "r") as root:
            yield Hdf5(h5py, root, budget)
    except (OSError, RuntimeError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError(f"a damaged HDF5 file: {error}") from None


class Hdf5:
    """An open file, in which all is found by its path from the root."""

    def __init__(self, h5py: Any, root: Any, budget: Budget) -> None:
        self.h5py = h5py
        self.root = root
        self.budget = budget

    def find(self, path: str) -> Any:
        """Return the group or dataset of this path, or None."""
        found = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(found, self.h5py.Group):
                return None
            link = found.get(name, getlink=True)
            if link is None:
                return None
            if not isinstance(link, self.h5py.HardLink):
                raise ValueError(f"{short(path)}: expected it in the file, got a link to elsewhere")
            found = found[name]
        return found

    def has(self, path: str) -> bool:
        """Tell whether there is anything of this path."""
        return self.find(path) is not None

    def array(self, path: str) -> np.ndarray:
        """Read a dataset of real numbers, as float32 or float64."""
        found = self.find(path)
        if not isinstance(found, self.h5py.Dataset):
            raise ValueError(f"{short(path)}: expected a dataset, got none")
        if found.external or found.is_virtual:
            raise ValueError(f"{short(path)}: expected its numbers in the file, got other files")
        if found.shape is None:
            raise ValueError(f"{short(path)}: expected numbers, got none")
        self.budget.take(path, math.prod(found.shape) * max(found.dtype.itemsize, 4))
        array = found[()]
        if found.dtype.kind == "V" and found.dtype.itemsize == 2:  # as h5py sees bfloat16
            return bfloat16(np.asarray(array).view(np.uint16))
        return real(short(path), np.asarray(array))

    def variables(self, path: str) -> list[np.ndarray]:
        """Read the datasets 0, 1, ... of a group, or none."""
        found: list[np.ndarray] = []
        while len(found) < _MOST_VARIABLES and self.has(f"{path}/{len(found)}"):
            found.append(self.array(f"{path}/{len(found)}"))
        return found

    def named(self, path: str) -> list[np.ndarray]:
        """Read the datasets that a group's attribute ``weight_names`` lists."""
        names = self.texts(path, "weight_names")
        if len(names) > _MOST_VARIABLES:
            raise ValueError(f"{short(path)}: expected few weights, got {len(names)}")
        return [self.array(f"{path}/{name}") for name in names]

    def text(self, path: str, name: str) -> str | None:
        """Read an attribute of text, or None."""
        found = self._attribute(path, name)
        if isinstance(found, bytes):
            return found.decode("utf-8")
        return found if isinstance(found, str) else None

    def texts(self, path: str, name: str) -> list[str]:
        """Read an attribute of several texts, or none."""
        found = self._attribute(path, name)
        values = [] if found is None else np.ravel(found).tolist()
        return [
            value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values
        ]

    def _attribute(self, path: str, name: str) -> Any:
        owner = self.find(path)
        if owner is None or name not in owner.attrs:
            return None
        described = owner.attrs.get_id(name)
        self.budget.take(name, math.prod(described.shape) * max(described.dtype.itemsize, 1))
        return owner.attrs[name]
