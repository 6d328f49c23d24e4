"""The parameters of a layer as one store: read-only outside, changed whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.core.access import reading, writing
from cylstm.core.memory import copy_all
from cylstm.core.weights import Version

__all__ = ["Lent", "Parameters", "checked"]


class Parameters:
    """Arrays of one dtype by name, in memory that stays where it is.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
    dtype : dtype

    Attributes
    ----------
    views : dict of str to array
        The parameters, read-only; they show every change, the half of one too.
    version : Version
        Counts the changes; odd while there is one.
    alone : frozenset
        This store, as `reading` and `writing` want it.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype) -> None:
        self.dtype = dtype
        self._arrays = {name: checks.memory(shape, dtype) for name, shape in shapes.items()}
        self.views = {name: read_only(array) for name, array in self._arrays.items()}
        self.version = Version()
        self.alone = frozenset({self})

    def begin_change(self) -> None:
        """Make the version odd."""
        self.version.changes += 1

    def end_change(self) -> None:
        """Make it even."""
        self.version.changes += 1

    def reading(self) -> reading:
        """Return a ``with`` block in which no other thread changes the parameters."""
        return reading(self.alone)

    def memory(self) -> dict[str, np.ndarray]:
        """Return the arrays themselves, to be written to within `writing` alone."""
        return dict(self._arrays)

    def copies(self) -> dict[str, np.ndarray]:
        """Return copies by name, all of one moment."""
        with self.reading():
            return {name: array.copy() for name, array in self._arrays.items()}

    def checked(self, name: str, value: Any) -> np.ndarray:
        """Return a value for this parameter, contiguous and of its dtype.

        Raises
        ------
        TypeError
            If it is no array of real numbers.
        ValueError
            If its shape is another.
        """
        return checked(name, value, self._arrays[name])

    def checked_all(self, values: Mapping[str, Any], what: str) -> dict[str, np.ndarray]:
        """Return a value for each parameter; KeyError names those missing or unknown."""
        missing = [name for name in self._arrays if name not in values]
        unexpected = [name for name in values if name not in self._arrays]
        if missing or unexpected:
            raise KeyError(f"{what}: missing {missing}, unexpected {unexpected}")
        return {name: self.checked(name, values[name]) for name in self._arrays}

    def assign(self, values: Mapping[str, np.ndarray]) -> None:
        """Copy in values from `checked`, some of which may be our own."""
        names = list(values)
        sources = [values[name].copy() for name in names]
        with writing(self.alone):
            copy_all([self._arrays[name] for name in names], sources)

    @contextmanager
    def edit(self) -> Iterator[Lent]:
        """Lend copies, which take effect when the block ends, unless by an exception."""
        lent = Lent(self.copies())
        try:
            yield lent
        finally:
            values = lent.returned()
        self.assign(self.checked_all(values, "parameters"))

    def __getstate__(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "arrays": self.copies()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = state["arrays"]
        self.__init__({name: array.shape for name, array in arrays.items()}, state["dtype"])
        self.assign(arrays)


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a view of the array's buffer: unlike that of an array, it cannot be made writable."""
    return np.asarray(memoryview(array).toreadonly())


def checked(name: str, value: Any, like: np.ndarray) -> np.ndarray:
    """Return a value for a parameter: real numbers of its shape, contiguous, of its dtype."""
    if hasattr(value, "detach"):  # a tensor that may require a gradient
        value = value.detach()
    given = checks.is_array(name, value)
    if given.dtype.kind != "f":
        raise TypeError(f"{name}: expected real numbers, got {given.dtype}")
    if given.shape != like.shape:
        raise ValueError(f"{name}: expected shape {like.shape}, got {given.shape}")
    return np.ascontiguousarray(given, like.dtype)


class Lent(MutableMapping[str, np.ndarray]):
    """Arrays by name, to be written to or replaced by others, until they are returned."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._copies = list(arrays.values())
        self._is_back = False

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __setitem__(self, name: str, value: np.ndarray) -> None:
        if self._is_back:
            raise RuntimeError(f"{name}: the block in which parameters can be changed has ended")
        if name not in self._arrays:
            raise KeyError(f"{name}: expected one of {', '.join(self._arrays)}")
        self._arrays[name] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: a parameter cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def returned(self) -> dict[str, np.ndarray]:
        """Return what the names stand for now; the copies that were lent become read-only."""
        self._is_back = True
        for array in self._copies:
            array.flags.writeable = False
        return self._arrays
