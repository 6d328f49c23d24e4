"""The files in which PyTorch's weights come: what tensors they hold, and what they say of modules.

A file of ``torch.save`` is a pickle, and raw memory to which the pickle's tensors refer: in a zip
archive, or one after the other in the format before PyTorch 1.6. The pickle is read as data
(`cylstm.io.unpickle`), and of the memory only what is used. Arrays come in pickles of Python's own
and in NumPy's archives; archives of other programs may hold such files.

The formats: ``torch/serialization.py`` of PyTorch; ``numpy/lib/format.py`` of NumPy.
"""

from __future__ import annotations

import functools
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import IO, Any

from cylstm.formats import torchscript
from cylstm.formats.torch_tensors import Storage, leaves, npy, storage_of
from cylstm.io import safetensors, unpickle
from cylstm.io.files import PICKLES, ZIP, Budget, naming, open_plain
from cylstm.io.sight import describe_archive, describe_file
from cylstm.io.zips import opened, read_member

__all__ = ["PLAIN", "SAID", "Contents", "contents", "contents_of_bytes"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_DEEPEST = 64  # of dictionaries and modules within each other
_DEEPEST_ARCHIVE = 2  # of archives within each other
_PARTS_OF_MODULES = ("_parameters", "_modules", "_buffers")  # no part of a name in a state dict
_STARTS_WITHIN = (ZIP, b"\x80\x02\x8a\n")  # of files of torch.save, new and old
_HEAD = 4096  # bytes of an archived file that tell what it is
_LOADED = "torch.storage _load_from_bytes"  # how a tensor stands in a pickle of Python's own
SAID = {  # what a module says of itself that its weights do not, or that they must agree with
    *("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"),
    *("bidirectional", "proj_size", "nonlinearity"),
}
PLAIN = (bool, int, float, str)  # classes of a user's own may have modules of these names


@dataclass
class Contents:
    """What a file, or an object in memory, holds."""

    tensors: dict[str, Any] = field(default_factory=dict)  # by name
    said: Callable[[str], Mapping[str, Any]] = lambda _name: {}  # by the module of this name
    computed: Callable[[str, str], Any] = lambda _name, _weight: None  # what a module makes of it
    note: str = ""  # what else should be told where no LSTM is found


@contextmanager
def contents(path: Any) -> Iterator[Contents]:
    """Open a file, and lend what it holds; its tensors are read when used."""
    with open_plain(path) as file, naming(path):
        budget = Budget(os.fstat(file.fileno()).st_size)
        start = file.read(9)
        file.seek(0)
        if start.startswith(ZIP):
            with opened(file) as archive:
                try:
                    yield _read_archive(archive, budget)
                except zlib.error as error:
                    raise ValueError(f"a damaged zip archive: {error}") from None
        elif safetensors.begins(start):
            yield Contents(dict(safetensors.read(path)[0]))
        elif start.startswith(PICKLES):
            yield _read_pickles(file, budget)
        else:
            raise ValueError(
                "expected a zip archive or a pickle as torch.save writes them, a pickle or archive "
                f"of arrays, or a safetensors file, got {describe_file(file)}"
            )


def contents_of_bytes(content: bytes) -> Contents:
    """Return what an archive in memory holds, which a module there made of itself."""
    return _read_inner(content, Budget(len(content)), _DEEPEST_ARCHIVE)


# Archives ---------------------------------------------------------------------------------------


def _read_archive(archive: zipfile.ZipFile, budget: Budget, depth: int = 0) -> Contents:
    """Read PyTorch's format, NumPy's, or one that holds files of these."""
    names = archive.namelist()
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) == 1:
        return _read_zip(archive, pickles[0], budget)
    if pickles:
        raise ValueError(f"expected one data.pkl in the archive, got {short(pickles)}")
    if names and all(name.endswith(".npy") for name in names):
        arrays = {}
        for name in names:
            content = functools.partial(_read_small, archive, name, budget)
            arrays[name[:-4]] = npy(name, _starts(archive, name), content, budget)
        return Contents(arrays)
    found = Contents()
    for name in names:
        if depth < _DEEPEST_ARCHIVE and _starts(archive, name)[:4] in _STARTS_WITHIN:
            inner = _read_inner(read_member(archive, name, budget), budget, depth + 1)
            stem = name.rpartition("/")[2].rpartition(".")[0] or name
            _add(found.tensors, {f"{stem}.{n}": t for n, t in inner.tensors.items()})
    if not found.tensors:
        raise ValueError(
            f"expected data.pkl in the archive, or arrays, got {describe_archive(names)}"
        )
    return found


def _read_inner(content: bytes, budget: Budget, depth: int) -> Contents:
    """Read a file that lies in an archive."""
    file = io.BytesIO(content)
    if content.startswith(ZIP):
        return _read_archive(zipfile.ZipFile(file), budget, depth)  # it stays open, for its tensors
    return _read_pickles(file, budget)


def _starts(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an archived file's first bytes, if they can be had."""
    info = archive.getinfo(name)
    if info.flag_bits & 1:  # it is encrypted
        return b""
    with archive.open(info) as file:
        return file.read(_HEAD)


def _read_small(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """Read an archived file that may be compressed, within the budget."""
    info = archive.getinfo(name)
    budget.take(name, info.file_size)
    with archive.open(info) as file:
        return file.read(info.file_size)  # no more is unpacked, whatever there is


def _read_zip(archive: zipfile.ZipFile, pickled: str, budget: Budget) -> Contents:
    """Read the format since PyTorch 1.6, which TorchScript's files share."""
    names = set(archive.namelist())
    folder = pickled.removesuffix("data.pkl")
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
        return storage_of(identity, order, memory)

    def code(file: str) -> str | None:
        name = f"{folder}code/{file}"
        return _read_small(archive, name, budget).decode() if name in names else None

    content = io.BytesIO(read_member(archive, pickled, budget))
    found = _walk(unpickle.load(content, storage), budget, code)
    if f"{folder}constants/0" in names:
        found.note = (
            "a frozen TorchScript file keeps weights without their names: "
            "save the module as it was before torch.jit.freeze"
        )
    return found


# Pickles ----------------------------------------------------------------------------------------


def _read_pickles(file: IO[bytes], budget: Budget) -> Contents:
    """Read PyTorch's format before 1.6, or a pickle of Python's own."""
    content = unpickle.load(file, _refuse)
    if content != _LEGACY_MAGIC:
        return _walk(content, budget)
    return _walk(*_read_legacy(file, budget))


def _read_legacy(file: IO[bytes], budget: Budget) -> tuple[Any, Budget]:
    """Read the format before: five pickles, then the storages, each after its size.

    The pickles are a number, which was read, a version, what the machine was like, the object, and
    the order of the storages.
    """
    storages: dict[str, Storage] = {}
    places: dict[str, tuple[int, int]] = {}
    head = [unpickle.load(file, _refuse) for _ in range(2)]
    if head[0] != _LEGACY_VERSION or not isinstance(head[1], unpickle.Pairs):
        raise ValueError("expected a file of torch.save, got another pickle")
    order = ">" if ("little_endian", False) in head[1].items else "<"

    @functools.cache
    def memory(key: str) -> bytes:
        position, nbytes = places[key]
        budget.take(key, nbytes)
        file.seek(position)
        return file.read(nbytes)

    def storage(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",):  # a class and its source
            return identity[1]
        made = storage_of(identity, order, memory)
        return storages.setdefault(made.key, made) if made.base == 0 else made

    content = unpickle.load(file, storage)
    begin = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(begin)
    for key in unpickle.load(file, _refuse):
        if not isinstance(key, str):  # others may take forever to be looked up
            raise ValueError(f"expected the name of a storage, got {short(key)}")
        count = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        nbytes = count * storages[key].itemsize
        places[key] = file.tell(), nbytes
        if file.tell() + nbytes > end:
            raise ValueError(f"storage {short(key)}: expected {nbytes} bytes, got the file's end")
        file.seek(nbytes, os.SEEK_CUR)
    return content, budget


def _refuse(identity: Any) -> Any:
    raise ValueError(f"expected no storage in the file's head, got {short(identity)}")


def _loaded(stored: unpickle.Stored, budget: Budget) -> unpickle.Stored:
    """Return a tensor whose storage is a file of its own within a pickle."""
    inner = stored.storage
    if not isinstance(inner, unpickle.Instance) or inner.kind != _LOADED:
        return stored
    if not isinstance(inner.state, Storage):  # tensors that share one share its state
        (content,) = inner.arguments
        if not isinstance(content, bytes):
            raise ValueError(f"expected a storage's bytes, got {short(content)}")
        file = io.BytesIO(content)
        if unpickle.load(file, _refuse) != _LEGACY_MAGIC:
            raise ValueError("expected a storage of torch.save, got another pickle")
        inner.state = _read_legacy(file, budget)[0]
    return unpickle.Stored(inner.state, stored.offset, stored.size, stored.stride)


# Objects ----------------------------------------------------------------------------------------


def _walk(
    content: Any, budget: Budget, code: Callable[[str], str | None] | None = None
) -> Contents:
    """Find the tensors in dictionaries, lists and modules within each other."""
    found: dict[str, Any] = {}
    modules: dict[str, unpickle.Instance] = {}
    seen: set[int] = set()  # so that what stands in many places is walked once
    todo = [("", content, 0)]
    while todo:
        name, value, depth = todo.pop()
        if isinstance(value, unpickle.Stored):
            value = _loaded(value, budget)
        own = dict(leaves(name, value, budget))
        for leaf in own.keys() & found.keys():
            raise ValueError(f"{short(leaf)}: expected one tensor of this name, got two")
        found.update(own)
        if own or depth > _DEEPEST:
            continue
        if isinstance(value, unpickle.Instance):
            modules[name] = value
        for key, part in reversed(list(_parts(value, seen))):  # the last is taken first
            if key is None:
                todo.append((name, part, depth + 1))
            else:
                inner = f"{name}.{key}" if name else str(key)
                budget.take("names of tensors", len(inner))  # many may begin with one long name
                todo.append((inner, part, depth + 1))
    return Contents(found, functools.partial(_said, modules, code))


def _parts(value: Any, seen: set[int]) -> Iterator[tuple[Any, Any]]:
    """Return what a container holds, by key; without one what bears the container's own name."""
    if isinstance(value, unpickle.Instance):
        if id(value) not in seen:
            seen.add(id(value))
            yield from _parts_of_object(value)
        return
    items = value.items if isinstance(value, unpickle.Pairs) else value
    if not isinstance(items, (list, tuple)) or id(items) in seen:
        return
    seen.add(id(items))
    if items is value:
        yield from ((k, part) for k, part in enumerate(items) if _is_container(part))
        return
    for key, part in items:
        if isinstance(key, (str, int)):
            yield key, part


def _parts_of_object(value: unpickle.Instance) -> Iterator[tuple[Any, Any]]:
    own = _attributes(value)
    of_module = any(key in _PARTS_OF_MODULES for key in own)
    for key, part in own.items():
        if key in _PARTS_OF_MODULES:
            yield None, part
        elif isinstance(part, (list, tuple)):  # TorchScript lists an LSTM's weights again
            continue
        elif not of_module or _is_packed(part):
            yield key, part
    if value.items is not None:
        yield None, value.items


def _attributes(value: unpickle.Instance) -> dict[str, Any]:
    """Return an object's attributes, those in slots too."""
    states = value.state if isinstance(value.state, tuple) else (value.state,)
    own = {}
    for state in states:
        for key, part in state.items if isinstance(state, unpickle.Pairs) else ():
            if isinstance(key, str):
                own[key] = part
    return own


def _is_container(value: Any) -> bool:
    kinds = (unpickle.Pairs, unpickle.Instance, unpickle.Stored, list, tuple)
    return isinstance(value, kinds)


def _is_packed(value: Any) -> bool:
    return isinstance(value, unpickle.Instance) and value.kind == "torch ScriptObject"


def _said(
    modules: Mapping[str, unpickle.Instance], code: Callable[[str], str | None] | None, name: str
) -> dict[str, Any]:
    """Return what the module of this name says of itself, in its attributes or in its code."""
    if name not in modules:
        return {}
    own = {
        key: value
        for key, value in _attributes(modules[name]).items()
        if key in SAID and isinstance(value, PLAIN)
    }
    return (torchscript.options(modules[name].kind, code) if code is not None else {}) | own


def _add(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name in more.keys() & found.keys():
        raise ValueError(f"{short(name)}: expected one tensor of this name, got two")
    found.update(more)
