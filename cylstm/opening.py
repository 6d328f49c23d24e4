"""One door to all files that are read: what a file is, its content tells, not its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from cylstm import checks
from cylstm.family import Trainable
from cylstm.gru import GRU
from cylstm.io import safetensors
from cylstm.io.files import HDF5, PICKLES, ZIP, naming, open_plain
from cylstm.io.sight import HEAD, describe_start, is_onnx
from cylstm.lstm import LSTM
from cylstm.rnn import RNN

if TYPE_CHECKING:
    from cylstm.layers import Layer

__all__ = ["kind_of_file", "load", "load_to_score"]

_OWN: dict[str, type[Trainable[Any]]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


def load(
    path: str | os.PathLike[str],
    prefix: str | None = None,
    *,
    batch_first: bool | None = None,
    config: Any = None,
    layers: Mapping[str, type[Layer]] | None = None,
    check: bool = True,
) -> Any:
    """Open a file of cylstm, PyTorch, Keras or ONNX; its content tells which it is.

    Parameters
    ----------
    path : path-like
    prefix : str, optional
        Of PyTorch's: which LSTM of several, as `from_torch` takes it.
    batch_first : bool, optional
        Of PyTorch's, as `from_torch` takes it.
    config : mapping, JSON text or path-like, optional
        Of a Keras file of weights alone: the model's configuration, as `from_keras` takes it.
    layers : mapping of str to type, optional
        Of a file of cylstm's: classes of layers of one's own, by their names in the file, beside
        those that `cylstm.layers.register` knows. No code comes from a file.
    check : bool, default True
        Whether a file that was saved with ``check=True`` is tested: the model is run on the input
        that the file keeps, and refused if its output is not the one that is kept beside it.

    Returns
    -------
    LSTM or Layer
        What `LSTM.save` and `Sequential.save` saved, bit for bit; the LSTM of a PyTorch file; the
        whole model of a Keras or ONNX file, chain or graph. `from_torch`, `from_keras` and
        `from_onnx` take LSTMs alone.

        A model of Keras or ONNX is called with the model's input and returns its output; it does
        not train. A chain is a `Sequential`, which streams if none of its layers needs all steps at
        once. A graph of several inputs takes them by name, as keyword arguments or in a dict; one
        of several outputs returns them in a dict by name.

    Raises
    ------
    ValueError
        If the file is none of these, is damaged, is newer than this version can read, or holds a
        layer, an option or an operator that is not read (the message names the first); it tells
        what the file is, where that is known. Also if the file keeps an output, and the model gives
        another.
    TypeError
        If there is an argument that files of its kind do not take.
    ModuleNotFoundError
        If h5py, or onnx, is needed and not installed.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> lstm = cylstm.LSTM(3, 4, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     lstm.save(path)
    ...     again = cylstm.load(path)
    >>> bool((again.weight_ih_l0 == lstm.weight_ih_l0).all())
    True
    """
    check = checks.is_true_or_false("check", check)
    given = {"prefix": prefix, "batch_first": batch_first, "config": config, "layers": layers}
    given = {name: value for name, value in given.items() if value is not None}
    kind = kind_of_file(path)
    if kind.endswith("safetensors"):
        return _tensors(path, given, check)
    if kind.startswith("PyTorch"):
        return _of_torch(path, path, given)
    if kind.startswith("Keras"):
        from cylstm.formats.keras import load_keras

        _check_taken(path, "Keras", given, "config")
        return load_keras(path, config)
    if kind != "ONNX":
        raise ValueError(
            f"{os.fspath(path)}: expected a file of cylstm, PyTorch, Keras or ONNX, got {kind}"
        )
    from cylstm.formats.onnx_chain import load_onnx

    _check_taken(path, "ONNX", given)
    return load_onnx(path)


def _tensors(path: Any, given: dict[str, Any], check: bool) -> Any:
    """Open a safetensors file: ours, or another's."""
    from cylstm import selfcheck

    tensors, metadata = safetensors.read(path)
    if not safetensors.is_model(metadata):
        return _of_torch(path, tensors, given)
    kind, config = safetensors.check_model(path, metadata)
    _check_taken(path, "cylstm", given, *(("layers",) if kind == "Sequential" else ()))
    with naming(path):
        example = selfcheck.taken(tensors, metadata)
    model = _own_model(path, kind, config, tensors, given)
    if example is not None and check:
        with naming(path):
            selfcheck.verify(model, example)
    return model


def _own_model(path: Any, kind: str, config: Any, tensors: Any, given: dict[str, Any]) -> Any:
    """Make the model of a file of ours."""
    if kind in _OWN:
        return _OWN[kind]._from_file(path, config, tensors)
    if kind.startswith("Quantized"):
        from cylstm.quantized import quantized_from_file

        return quantized_from_file(path, kind, config, tensors)
    from cylstm.layers import Sequential

    return Sequential._from_file(path, config, tensors, given.get("layers"))


def _of_torch(path: Any, source: Any, given: dict[str, Any]) -> LSTM:
    """Make the LSTM of a file, or of the tensors that were read of it."""
    from cylstm.formats.torch import from_torch

    _check_taken(path, "PyTorch", given, "prefix", "batch_first")
    with nullcontext() if source is path else naming(path):
        return from_torch(source, **given)


def _is_keras(path: Any) -> bool:
    """Tell Keras's archives from PyTorch's and NumPy's."""
    from cylstm.io.zips import opened

    with open_plain(path) as file, naming(path), opened(file) as archive:
        names = set(archive.namelist())
    return {"config.json", "model.weights.h5"} <= names


def _check_taken(path: Any, maker: str, given: dict[str, Any], *taken: str) -> None:
    """Refuse arguments that have no meaning for this file."""
    for name in given.keys() - set(taken):
        raise TypeError(f"{name}: expected none for a file of {maker}, {os.fspath(path)}")


def load_to_score(path: str | os.PathLike[str], batch_first: bool | None = None) -> LSTM | Layer:
    """Do what `load` does for a caller that fits its axes to the model's.

    So it need not be warned that a file does not tell which axis is the batch's.
    """
    if not kind_of_file(path).startswith("PyTorch"):
        return load(path)
    return load(path, batch_first=bool(batch_first))


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """Return whose file it is, and how it is stored, as its content tells; not whether it is read.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> cylstm.LSTM(3, 4).save(path)
    >>> kind_of_file(path)
    'cylstm, safetensors'
    """
    with open_plain(path) as file:
        start = file.read(HEAD)
    if safetensors.begins(start):
        own = safetensors.is_model(safetensors.read_metadata(path))
        return "cylstm, safetensors" if own else "PyTorch, safetensors"
    if start.startswith(ZIP):
        return "Keras, .keras" if _is_keras(path) else "PyTorch, or arrays in a zip"
    if start.startswith(PICKLES):
        return "PyTorch, pickle"
    if start.startswith(HDF5):
        return "Keras, HDF5"
    return "ONNX" if is_onnx(start) else describe_start(start)
