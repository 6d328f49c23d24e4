"""Whole models from other frameworks' files."""

from __future__ import annotations

import os
from typing import Any

from cylstm.io.files import HDF5, ZIP, open_plain
from cylstm.io.sight import HEAD, describe_start, is_onnx
from cylstm.train.layers import Layer

__all__ = ["load_model"]


def load_model(path: Any, *, config: Any = None) -> Layer:
    """Read a whole model of Keras or ONNX, chain or graph, and score with it.

    Parameters
    ----------
    path : path-like
        A Keras file (``.keras``, ``.weights.h5``, ``.h5``), or an ONNX one.
    config : mapping, JSON text or path-like, optional
        The configuration of a Keras file of weights alone, as `from_keras` takes it.

    Returns
    -------
    Layer
        Called with the model's input, it returns the model's output. It does not train. A graph
        of several inputs takes them by name, as keyword arguments or in a dict; one of several
        outputs returns them in a dict by name. A chain is a `Sequential`.

    Raises
    ------
    ValueError
        If there is a layer, an option or an operator that is not read (the message names the
        first), or the file is damaged. `from_keras` and `from_onnx` take the LSTMs alone.
    TypeError
        If a configuration is given for an ONNX file.
    ModuleNotFoundError
        If h5py, or onnx, is not installed.
    OSError
        If the file cannot be read.
    """
    with open_plain(path) as file:
        start = file.read(HEAD)
    if start.startswith((ZIP, HDF5)):
        from cylstm.io.keras import load_keras

        return load_keras(path, config)
    if not is_onnx(start):
        raise ValueError(
            f"{os.fspath(path)}: expected a file of Keras or ONNX, or for cylstm.load one of "
            f"cylstm or PyTorch too, got {describe_start(start)}"
        )
    if config is not None:
        raise TypeError(f"config: expected none for an ONNX file, {os.fspath(path)}")
    from cylstm.io.onnx_chain import load_onnx

    return load_onnx(path)
