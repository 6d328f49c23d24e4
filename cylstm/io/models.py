"""Whole models from other frameworks' files."""

from __future__ import annotations

from typing import Any

from cylstm.train.layers import Sequential

__all__ = ["load_model"]


def load_model(path: Any, *, config: Any = None) -> Sequential:
    """Read a whole model that is a chain of layers, and score with it.

    Parameters
    ----------
    path : path-like
        A Keras file (``.keras``, ``.weights.h5``, ``.h5``), or an ONNX one.
    config : mapping, JSON text or path-like, optional
        The configuration of a Keras file of weights alone, as `from_keras` takes it.

    Returns
    -------
    Sequential
        Called with the model's input, it returns the model's output. It does not train.

    Raises
    ------
    ValueError
        If the model is no chain, or has other layers (the message names the first), or the file is
        damaged. `from_keras` and `from_onnx` take the LSTMs alone.
    ModuleNotFoundError
        If h5py, or onnx, is not installed.
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    if start[:4] == b"PK\x03\x04" or start == b"\x89HDF\r\n\x1a\n":
        from cylstm.io.keras import load_keras

        return load_keras(path, config)
    from cylstm.io.onnx_chain import load_onnx

    return load_onnx(path)
