"""What it takes to train an LSTM: layers, losses, optimizers, batches, and the loop.

Every layer and model has one protocol (`Layer`): ``forward`` returns the output and a tape,
``backward`` takes the tape and the output's gradient and returns the input's and the parameters'.
`fit` trains a model; a training step by hand is three lines::

    prediction, tape = model.forward(x)
    loss, gradient = mse_loss(prediction, target)
    optimizer.step(model.backward(tape, gradient)[1])
"""

from cylstm.layers import (
    GELU,
    Attention,
    Dropout,
    Embedding,
    Last,
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
    MeanPool,
    ReLU,
    RowGradient,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from cylstm.train.batches import Arrays, Batch, Buckets, Source, Streams, windows
from cylstm.train.gradients import clip_grad_norm, clip_grad_value
from cylstm.train.history import History
from cylstm.train.loop import Diverged, evaluate, fit
from cylstm.train.losses import cross_entropy_loss, huber_loss, mae_loss, mse_loss
from cylstm.train.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from cylstm.train.schedules import Cosine, Exponential, LinearDecay, Plateau

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "Arrays",
    "Attention",
    "Batch",
    "Buckets",
    "Cosine",
    "Diverged",
    "Dropout",
    "Embedding",
    "Exponential",
    "History",
    "Last",
    "Layer",
    "LayerNorm",
    "Linear",
    "LinearDecay",
    "MaxPool",
    "MeanPool",
    "Optimizer",
    "Plateau",
    "RMSprop",
    "ReLU",
    "RowGradient",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Source",
    "Streams",
    "Tanh",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy_loss",
    "evaluate",
    "fit",
    "huber_loss",
    "mae_loss",
    "mse_loss",
    "windows",
]
