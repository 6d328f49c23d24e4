"""What it takes to train an LSTM: layers, losses, optimizers, and the care of gradients.

Every layer and model has one protocol (`Layer`): ``forward`` returns the output and a tape,
``backward`` takes the tape and the output's gradient and returns the input's and the parameters'.
A training step is three lines::

    prediction, tape = model.forward(x)
    loss, gradient = mse_loss(prediction, target)
    optimizer.step(model.backward(tape, gradient)[1])
"""

from cylstm.train.gradients import RowGradient, clip_grad_norm, clip_grad_value
from cylstm.train.layers import Dropout, Embedding, Last, Layer, Linear, Sequential
from cylstm.train.losses import cross_entropy_loss, huber_loss, mae_loss, mse_loss
from cylstm.train.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Dropout",
    "Embedding",
    "Last",
    "Layer",
    "Linear",
    "Optimizer",
    "RMSprop",
    "RowGradient",
    "Sequential",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy_loss",
    "huber_loss",
    "mae_loss",
    "mse_loss",
]
