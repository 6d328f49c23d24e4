"""Layers, and models made of them, for inference and training; all follow one protocol, `Layer`."""

from cylstm.layers.activations import GELU, ReLU, Sigmoid, Softmax, Tanh
from cylstm.layers.attention import Attention
from cylstm.layers.base import Layer
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.gradients import RowGradient
from cylstm.layers.linear import Linear
from cylstm.layers.norm import LayerNorm
from cylstm.layers.pooling import Last, MaxPool, MeanPool
from cylstm.layers.quantized import QuantizedLinear
from cylstm.layers.saved import register
from cylstm.layers.sequential import Sequential
from cylstm.layers.streams import SequentialStream

__all__ = [
    "GELU",
    "Attention",
    "Dropout",
    "Embedding",
    "Last",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "MeanPool",
    "QuantizedLinear",
    "ReLU",
    "RowGradient",
    "Sequential",
    "SequentialStream",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "register",
]
