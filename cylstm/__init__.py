"""LSTMs on the CPU, fast and small: run them, stream them, train them."""

from typing import Any

from cylstm.config import show_config
from cylstm.core.team import get_num_threads, set_num_threads
from cylstm.gru import GRU
from cylstm.lstm import LSTM
from cylstm.opening import load
from cylstm.rnn import RNN
from cylstm.stream import Stream

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
    "get_num_threads",
    "load",
    "load_tensors",
    "score",
    "set_num_threads",
    "show_config",
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
    "load_tensors": "cylstm.formats.tensors",
    "score": "cylstm.jobs.api",
}


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from warnings import warn

        warn("cylstm.load_model: it is called cylstm.load now", DeprecationWarning, stacklevel=2)
        return load
    if name not in _LATER:
        raise AttributeError(f"module 'cylstm' has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_LATER[name]), name)
    return found
