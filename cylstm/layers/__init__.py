"""Layers, and models made of them, for inference and training; all follow one protocol, `Layer`."""

from cylstm.layers.attention import Attention
from cylstm.layers.base import Layer
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.gradients import RowGradient
from cylstm.layers.last import Last
from cylstm.layers.linear import Linear
from cylstm.layers.quantized import QuantizedLinear
from cylstm.layers.sequential import Sequential, SequentialStream

__all__ = [
    "Attention",
    "Dropout",
    "Embedding",
    "Last",
    "Layer",
    "Linear",
    "QuantizedLinear",
    "RowGradient",
    "Sequential",
    "SequentialStream",
]
