"""HDF5 files as Keras writes them: their arrays and texts, read by h5py in a process of its own.

A damaged file can send the HDF5 library into an endless loop, or crash it. So another process reads
the file, within limits of time and memory, and hands over what a model may need of it.

HDF5 can refer to other files: by external links, by external storage, and by virtual datasets. None
is followed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from reprlib import repr as short
from typing import IO, Any

import numpy as np

from cylstm.io.files import Budget, bfloat16, parse_object, real

__all__ = ["Hdf5", "main", "opened", "plain"]

_MOST_VARIABLES = 64  # of a group
_MOST_OBJECTS = 100_000  # groups and datasets; a circle of links has no end
_DEEPEST = 32
_TEXTS = (  # the attributes that are read
    *("keras_version", "layer_names", "model_config", "name", "weight_names"),
)
_NOT_THE_MODEL = ("optimizer", "optimizer_weights")
_START, _BYTES_A_SECOND = 20, 10**7  # the time of a CPU that reading may take,
_PATIENCE = 10  # and by the clock so many times that: other programs may want the CPUs
_ENDLESS = "a damaged HDF5 file: reading it does not end"
_ROOM = 2**31  # bytes that the other process may take beside the arrays

_PROGRAM = (
    "import os, sys; sys.path[:] = sys.argv.pop().split(os.pathsep); "
    "from cylstm.io.hdf5 import main; main(*map(int, sys.argv[1:]))"
)


@contextmanager
def opened(file: IO[bytes], size: int, budget: Budget) -> Iterator[Hdf5]:
    """Read a file, from the process's own folder or unpacked, and lend what it holds.

    Raises
    ------
    ValueError
        If it is damaged, or refers to other files, or would take too much time or memory.
    ModuleNotFoundError
        If h5py is not installed.
    """
    if sys.modules.get("h5py", ...) is None or find_spec("h5py") is None:
        raise ModuleNotFoundError(
            "Keras's files need h5py: python -m pip install 'cylstm[keras]'", name="h5py"
        )
    file.seek(0)
    seconds = math.ceil(_START + size / _BYTES_A_SECOND)
    with tempfile.TemporaryFile() as result:
        given = [str(budget.left), str(seconds), os.pathsep.join(sys.path)]
        command = [sys.executable, "-c", _PROGRAM, *given]
        try:
            done = subprocess.run(
                command, stdin=file, stdout=result, stderr=subprocess.DEVNULL,
                timeout=_PATIENCE * seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ValueError(_ENDLESS) from None
        if done.returncode == -getattr(signal, "SIGXCPU", 0):
            raise ValueError(_ENDLESS)
        result.seek(0)
        found = parse_object(result.readline().decode("utf-8") or "{}", "what was read")
        if done.returncode or not found:
            found = {"error": f"a damaged HDF5 file: it stops the HDF5 library ({done.returncode})"}
        if "error" in found:
            raise ValueError(found["error"])
        arrays = dict(_arrays(result, found["arrays"], budget))
        yield Hdf5(found["groups"], found["texts"], arrays, found["others"], budget)


def _arrays(
    file: IO[bytes], described: list[Any], budget: Budget
) -> Iterator[tuple[str, np.ndarray]]:
    """Read the arrays that the other process wrote."""
    for path, dtype, shape in described:
        array = np.empty(shape, dtype)
        budget.take(path, array.nbytes)
        file.readinto(array)
        yield path, array


class Hdf5:
    """What was read of a file; all is found by its path from the root, as ``group/dataset``.

    Parameters
    ----------
    groups : list of str
    texts : dict of str to dict of str to list of str
        By group, the texts of each attribute.
    arrays : dict of str to array
    others : list of str
        The datasets that hold no real numbers.
    budget : Budget
        What each use of an array takes from, since many layers may use one.
    """

    def __init__(
        self,
        groups: list[str],
        texts: dict[str, dict[str, list[str]]],
        arrays: dict[str, np.ndarray],
        others: list[str],
        budget: Budget,
    ) -> None:
        self.groups, self.texts_of, self.arrays = set(groups), texts, arrays
        self.budget = budget
        self._within: dict[str, list[str]] = {}
        for path in [*groups, *arrays, *others]:
            if path:
                self._within.setdefault(path.rpartition("/")[0], []).append(path)

    def has(self, path: str) -> bool:
        """Tell whether there is a group of this path."""
        return plain(path) in self.groups

    def within(self, path: str) -> list[str]:
        """Return the names of the groups and datasets of a group."""
        return [found.rpartition("/")[2] for found in self._within.get(plain(path), [])]

    def datasets(self, path: str) -> Iterator[str]:
        """Iterate over the paths of all datasets below a group, whatever they hold."""
        for found in self._within.get(plain(path), []):
            if found in self.groups:
                yield from self.datasets(found)
            else:
                yield found

    def array(self, path: str) -> np.ndarray:
        """Return a dataset of real numbers."""
        if plain(path) not in self.arrays:
            raise ValueError(f"{short(path)}: expected a dataset of real numbers, got none")
        array = self.arrays[plain(path)]
        self.budget.take(path, array.nbytes)
        return array

    def variables(self, path: str) -> list[str]:
        """Return the paths of the datasets 0, 1, ... of a group, or none."""
        names = (f"{plain(path)}/{number}" for number in range(_MOST_VARIABLES))
        return list(itertools.takewhile(self.arrays.__contains__, names))

    def text(self, path: str, name: str) -> str | None:
        """Return an attribute of text, or None."""
        return next(iter(self.texts(path, name)), None)

    def texts(self, path: str, name: str) -> list[str]:
        """Return an attribute of several texts, or none."""
        return self.texts_of.get(plain(path), {}).get(name, [])


def plain(path: str) -> str:
    """Return a path without empty parts."""
    return "/".join(filter(None, path.split("/")))


# The other process -----------------------------------------------------------------------------


def main(limit: int, seconds: int) -> None:
    """Read the HDF5 file that is the standard input, and write what it holds."""
    import h5py

    with contextlib.suppress(ImportError, ValueError, OSError):  # where there are such limits
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + limit + _ROOM,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    reader = _Reader(h5py, Budget.of(limit))
    found: dict[str, Any]
    try:
        with os.fdopen(0, "rb") as file, h5py.File(file, "r") as root:
            reader.read("", root, 0)
        found = {
            "groups": reader.groups,
            "texts": reader.texts,
            "arrays": [[path, a.dtype.str, a.shape] for path, a in reader.arrays.items()],
            "others": reader.others,
        }
    except Exception as error:  # of h5py, in any class
        message = str(error) if isinstance(error, ValueError) else f"a damaged HDF5 file: {error}"
        found, reader.arrays = {"error": message[:500]}, {}
    with os.fdopen(1, "wb") as out:
        out.write(json.dumps(found).encode("utf-8") + b"\n")
        for array in reader.arrays.values():
            out.write(array.data)


class _Reader:
    """Walks over a file, and keeps what it finds."""

    def __init__(self, h5py: Any, budget: Budget) -> None:
        self.h5py, self.budget = h5py, budget
        self.groups: list[str] = []
        self.texts: dict[str, dict[str, list[str]]] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.others: list[str] = []
        self._places: set[int] = set()  # where in the file what was read lies

    def read(self, path: str, group: Any, depth: int) -> None:
        """Read a group and all in it."""
        if depth > _DEEPEST or len(self._places) > _MOST_OBJECTS:
            raise ValueError(f"{short(path)}: expected fewer groups within groups")
        self.groups.append(path)
        for name in sorted(group.attrs, key=lambda name: (len(name), name)):
            if name.rstrip("0123456789") in _TEXTS:
                self.text(path, name, group)
        for name in group:
            own = f"{path}/{name}" if path else name
            if path == "" and name in _NOT_THE_MODEL:
                continue
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise ValueError(f"{short(own)}: expected it in the file, got a link to elsewhere")
            found = group[name]
            self.once(own, found)
            if isinstance(found, self.h5py.Group):
                self.read(own, found, depth + 1)
            elif isinstance(found, self.h5py.Dataset):
                self.array(own, found)

    def once(self, path: str, found: Any) -> None:
        """Refuse what stands under two names, since each array has one use."""
        place = self.h5py.h5o.get_info(found.id).addr
        if place in self._places:
            raise ValueError(f"{short(path)}: expected one name for it, got several")
        self._places.add(place)

    def text(self, path: str, name: str, group: Any) -> None:
        """Read an attribute; Keras numbers those that are too long to be one."""
        described = group.attrs.get_id(name)
        self.budget.take(name, math.prod(described.shape) * max(described.dtype.itemsize, 1))
        values = np.ravel(group.attrs[name]).tolist()
        self.texts.setdefault(path, {}).setdefault(name.rstrip("0123456789"), []).extend(
            value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values
        )

    def array(self, path: str, found: Any) -> None:
        """Read a dataset, if it holds real numbers, else note that it is there."""
        if found.external or found.is_virtual:
            raise ValueError(f"{short(path)}: expected its numbers in the file, got other files")
        bits = found.dtype.kind == "V" and found.dtype.itemsize == 2  # bfloat16, as h5py sees it
        if found.shape is None or not (bits or found.dtype.kind == "f"):
            self.others.append(path)
            return
        self.budget.take(path, math.prod(found.shape) * max(found.dtype.itemsize, 4))
        array = np.asarray(found[()])
        array = bfloat16(array.view(np.uint16)) if bits else real(short(path), array)
        self.arrays[path] = np.ascontiguousarray(array).reshape(found.shape)
