"""LSTMs, GRUs, RNNs and whole models that Keras made, of version 1, 2 or 3, without Keras.

What is read: ``.keras`` archives, ``.weights.h5`` and a configuration, and the legacy ``.h5`` of a
model or of its weights. All keep the arrays in HDF5, which h5py reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cylstm.family import Trainable
from cylstm.formats.chain import Chain
from cylstm.formats.keras_config import MODELS, Arrays, Entry
from cylstm.formats.keras_files import in_memory, opened_model
from cylstm.formats.keras_lstm import is_lstm, kind_of, lstm_of
from cylstm.formats.keras_model import Graph, model_of
from cylstm.formats.parts import GRU_ORDER, ordered
from cylstm.io.files import is_path, pick

__all__ = ["from_keras", "load_keras", "weights_for_keras"]


def from_keras(
    source: Any,
    layer: str | None = None,
    *,
    config: Any = None,
    forget_bias: float = 0.0,
) -> Any:
    """Make an LSTM of a Keras one. Keras need not be installed; a file needs h5py.

    Where there is no LSTM, or `layer` names another, a GRU (of ``reset_after=True``) or a SimpleRNN
    is made in the same way.

    Parameters
    ----------
    source : layer, model or path-like
        An ``LSTM`` or ``Bidirectional(LSTM)`` layer, a model that holds some, or a file:
        ``.keras``, ``.weights.h5``, or the legacy ``.h5`` of any Keras.
    layer : str, optional
        Which LSTM of several: the layer's name, after the names of the models around it and ``/``.
    config : mapping, JSON text or path-like, optional
        The model's configuration (``model.to_json()``), for a file of weights alone; by default
        the file's name with ``.json``, or ``config.json``, in the same folder.
    forget_bias : float, default 0
        Added to the forget gates' biases: 1 for weights of TensorFlow 1's cells, which add it
        whenever they run. Keras has its own (``unit_forget_bias``) in the stored weights.

    Returns
    -------
    LSTM, GRU or RNN
        With `batch_first`, as Keras. Its y holds all steps, in the order of the input, those of a
        layer that goes backwards too; of a Bidirectional it holds both halves side by side, first
        the one that reads forwards, whatever the ``merge_mode``. A mask is given as `lengths`.
        `cylstm.load` returns what Keras returns.

    Raises
    ------
    ValueError
        If there is no LSTM, or several and no `layer` (the message lists them), or it has options
        that cylstm's has not, or the file is damaged.
    ModuleNotFoundError
        If h5py is not installed.
    OSError
        If the file cannot be read.

    See Also
    --------
    cylstm.load : The whole model.
    LSTM.to_keras_weights : The way back.

    Examples
    --------
    >>> class LSTM:  # or Keras's
    ...     name = "lstm"
    ...     def get_config(self):
    ...         return {"units": 1, "go_backwards": True, "recurrent_activation": "sigmoid"}
    ...     def get_weights(self):
    ...         return [np.ones((2, 4)), np.ones((1, 4)), np.ones(4)]
    >>> cylstm.from_keras(LSTM())
    LSTM(2, 1, batch_first=True, reverse=True, dtype='float64')
    """
    if is_path(source):
        with opened_model(source, config) as model:
            return _pick(model, layer, forget_bias)
    if not hasattr(source, "get_config"):
        raise TypeError(f"source: expected a layer or a path, got {type(source).__name__}")
    return _pick(in_memory(source), layer, forget_bias)


def _pick(model: Entry, layer: str | None, forget_bias: float) -> Any:
    """Make the LSTM, or another, of that name."""
    found = {name: entry for name, entry in _all(model, "") if is_lstm(entry)}
    if layer is None:  # of an LSTM, if there is one
        found = {name: one for name, one in found.items() if kind_of(one) == "LSTM"} or found
    return lstm_of(found[pick("layer", layer, found)], forget_bias)


def _all(entry: Entry, before: str) -> Iterator[tuple[str, Entry]]:
    """Iterate over the layers, under their names."""
    if entry.kind not in MODELS:
        yield before + entry.name, entry
    for layer in entry.layers:
        yield from _all(layer, f"{before}{layer.name}/" if layer.kind in MODELS else before)


def load_keras(path: Any, config: Any = None) -> Chain | Graph:
    """Return what `cylstm.load` does, of a Keras file."""
    with opened_model(path, config) as model:
        return model_of(model)


def weights_for_keras(lstm: Trainable[Any]) -> Arrays:
    """Return what `LSTM.to_keras_weights` does."""
    lacking, kind = ("proj_size", "peephole", "coupled", "clip"), lstm._options.kind
    missing = [name for name in lacking if lstm.config.get(name)]
    if missing:
        one = "a GRU" if kind == "GRU" else f"an {kind}"
        raise ValueError(f"{', '.join(missing)}: expected {one} as Keras has it, got {lstm}")
    arrays = []
    for ending in lstm._options.endings:
        own = {
            name: getattr(lstm, name + ending)
            for name in ("weight_ih", "weight_hh", "bias", "bias_hn")
            if hasattr(lstm, name + ending)
        }
        if kind == "GRU":
            last = own.pop("bias_hn", None)
            own = {name: ordered(array, "zrn", GRU_ORDER) for name, array in own.items()}
            if last is not None:
                own["bias"] = np.stack([own["bias"], np.zeros_like(own["bias"])])
                own["bias"][1, 2 * len(last) :] = last
        for name, array in own.items():
            arrays.append(array.T.copy() if "weight" in name else array.copy())
    return arrays
