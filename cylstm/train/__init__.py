"""What it takes to train an LSTM: layers, losses, optimizers, and the care of gradients.

Every layer and model has one protocol (`Layer`): ``forward`` returns the output and a tape,
``backward`` takes the tape and the output's gradient and returns the input's and the parameters'.
A training step is three lines::

    prediction, tape = model.forward(x)
    loss, gradient = mse_loss(prediction, target)
    optimizer.step(model.backward(tape, gradient)[1])
"""

from cylstm.train.gradients import clip_grad_norm
from cylstm.train.layers import Last, Layer, Linear, Sequential
from cylstm.train.losses import mse_loss
from cylstm.train.optimizers import Adam, Optimizer

__all__ = [
    "Adam",
    "Last",
    "Layer",
    "Linear",
    "Optimizer",
    "Sequential",
    "clip_grad_norm",
    "mse_loss",
]
