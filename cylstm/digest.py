"""What tells one model from another: a digest of all that its outputs follow from."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from cylstm.recurrent import Recurrent

__all__ = ["digest_of"]


def digest_of(model: Any) -> str:
    """Return a digest of a model's configuration and parameters, the same in every process.

    It is not a digest of the file, so that it does not matter which file a model came from; nor of
    its pickle, which may differ from process to process.

    Examples
    --------
    >>> first, second = (cylstm.LSTM(2, 3, seed=seed) for seed in (0, 1))
    >>> digest_of(first) == digest_of(second), digest_of(first) == digest_of(first)
    (False, True)
    """
    found = hashlib.sha256()
    _add(found, model, ())
    return found.hexdigest()


def _add(found: Any, value: Any, path: tuple[int, ...]) -> None:
    """Add a value; `path` has those that it is within."""
    if id(value) in path:
        raise ValueError("model: expected no object that holds itself")
    inner = (*path, id(value))
    if value is None or isinstance(value, (bool, int, float, complex, str, np.generic, np.dtype)):
        _note(found, type(value).__name__, repr(value).encode())
    elif isinstance(value, (bytes, bytearray)):
        _note(found, "bytes", bytes(value))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        _note(
            found, f"array {value.dtype.str} {value.shape}", np.ascontiguousarray(value).tobytes()
        )
    elif isinstance(value, np.random.Generator):  # of training alone
        _note(found, "generator", b"")
    elif isinstance(value, dict):
        _note(found, "dict", str(len(value)).encode())
        for name in value:
            _add(found, name, inner)
            _add(found, value[name], inner)
    elif isinstance(value, (list, tuple)):
        _note(found, "list", str(len(value)).encode())
        for part in value:
            _add(found, part, inner)
    elif isinstance(value, (set, frozenset)):
        _note(found, "set", "\n".join(sorted(map(repr, value))).encode())
    elif isinstance(value, Recurrent):
        _note(found, type(value).__name__, b"")
        _add(found, value.config, inner)
        _add(found, value.state_dict(), inner)
    elif hasattr(value, "__qualname__"):  # a class or function
        _note(found, "named", f"{value.__module__}.{value.__qualname__}".encode())
    else:
        _note(found, "object", b"")
        try:
            made = value.__reduce_ex__(4)
        except TypeError as error:
            raise TypeError(f"model: expected one that can be pickled: {error}") from None
        if isinstance(made, str):
            raise TypeError(f"model: expected objects that tell what they are made of, got {made}")
        _add(found, list(made[:3]), inner)
        for part in made[3:5]:
            _add(found, None if part is None else list(part), inner)


def _note(found: Any, kind: str, content: bytes) -> None:
    found.update(f"{kind} {len(content)}:".encode())
    found.update(content)
