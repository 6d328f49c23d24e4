"""LSTMs on the CPU, fast and small: run them, stream them, train them."""

from typing import TYPE_CHECKING

from cylstm.core.team import get_num_threads, set_num_threads
from cylstm.gru import GRU
from cylstm.lstm import LSTM
from cylstm.opening import load
from cylstm.rnn import RNN
from cylstm.stream import Stream

if TYPE_CHECKING:  # what an editor and a type checker see of that which is imported later
    from cylstm import insight, layers, train
    from cylstm.comparing import compare
    from cylstm.config import get_include, show_config
    from cylstm.formats.keras import from_keras
    from cylstm.formats.onnx import from_onnx
    from cylstm.formats.tensors import load_tensors
    from cylstm.formats.torch import from_torch
    from cylstm.jobs.api import Scorer, score
    from cylstm.pool import StreamPool
    from cylstm.quantized import QuantizedGRU, QuantizedLSTM, QuantizedRNN

    __version__: str

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "QuantizedGRU",
    "QuantizedLSTM",
    "QuantizedRNN",
    "Scorer",
    "Stream",
    "StreamPool",
    "compare",
    "from_keras",
    "from_onnx",
    "from_torch",
    "get_include",
    "get_num_threads",
    "insight",
    "layers",
    "load",
    "load_tensors",
    "score",
    "set_num_threads",
    "show_config",
    "train",
]

_LATER = {  # imported when they are first used: most programs need none, or one
    "QuantizedGRU": "cylstm.quantized",
    "QuantizedLSTM": "cylstm.quantized",
    "QuantizedRNN": "cylstm.quantized",
    "Scorer": "cylstm.jobs.api",
    "StreamPool": "cylstm.pool",
    "compare": "cylstm.comparing",
    "from_keras": "cylstm.formats.keras",
    "from_onnx": "cylstm.formats.onnx",
    "from_torch": "cylstm.formats.torch",
    "get_include": "cylstm.config",
    "load_tensors": "cylstm.formats.tensors",
    "score": "cylstm.jobs.api",
    "show_config": "cylstm.config",
}

_FOLDERS = ("insight", "layers", "train")

if not TYPE_CHECKING:  # which would take any name for one that is there

    def __getattr__(name):
        from importlib import import_module

        if name == "load_model":
            from warnings import warn

            text = "cylstm.load_model: it is called cylstm.load now"
            warn(text, DeprecationWarning, stacklevel=2)
            return load
        if name in _FOLDERS:
            return import_module(f"cylstm.{name}")
        if name == "__version__":  # of pyproject.toml, as it was installed
            from importlib.metadata import version

            found = version("cylstm")
        elif name in _LATER:
            found = getattr(import_module(_LATER[name]), name)
        else:
            raise AttributeError(f"module 'cylstm' has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """The public names alone."""
    return [*__all__, "__version__"]
