"""The training loop: `fit` trains a model, `evaluate` judges it."""

from __future__ import annotations

import os
from reprlib import repr as short
from typing import Any

import numpy.typing as npt

from cylstm import checks
from cylstm.layers.base import Layer
from cylstm.layers.outputs import as_layer
from cylstm.lstm import LSTM
from cylstm.train.batches import as_data
from cylstm.train.console import Bar, Interrupts
from cylstm.train.gradients import positive
from cylstm.train.history import History
from cylstm.train.metrics import as_metrics
from cylstm.train.optimizers import Optimizer
from cylstm.train.run import Diverged, Loss, Run, Schedule, mean_loss

__all__ = ["Diverged", "evaluate", "fit"]


def fit(
    model: Layer | LSTM,
    data: Any,
    loss: Loss,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int = 32,
    steps_per_epoch: int | None = None,
    validation: Any = None,
    patience: int | None = None,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    segment: int | None = None,
    seed: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    metrics: Any = None,
    progress: bool = False,
) -> History:
    """Train a model.

    Parameters
    ----------
    model : Layer or cylstm.LSTM
        The model; it is changed in place.
    data : Source, pair of ndarray, or iterable
        Where batches come from: a `Source`; a tuple (x, target) or (x, target, lengths) of arrays
        as the model takes and the loss compares them, whose examples lie along the batch's axis;
        or anything that gives a `Batch`, or a tuple (x, target) or (x, target, lengths), at a time.
        What can be iterated anew is, in each epoch; an iterator goes on.
    loss : callable
        ``loss(prediction, target)`` gives the loss and its gradient. Where the model's output has
        steps and the batch has lengths, it is called with ``where`` beside them: the steps (T, N)
        that count.
    optimizer : Optimizer
        Made for this model.
    epochs : int
        How often to go through the data.
    batch_size : int, default 32
        Of data given as arrays.
    steps_per_epoch : int, optional
        How many batches make an epoch, where not all do.
    validation : as `data`, optional
        What to judge the model by after each epoch.
    patience : int, optional
        How many epochs without a lower validation loss end the training. The model is then, as
        after the last epoch, the one of the best epoch. A loss that is NaN or infinite is never the
        best.
    schedule : callable, optional
        ``schedule(step, losses)`` gives the learning rate, from the number of steps taken and the
        losses of the epochs so far.
    clip_norm, clip_value : float, optional
        Bounds on the gradients' norm, all together, and on each number; the latter comes first.
    segment : int, optional
        For long sequences: keep of an LSTM's pass only its state at every so many steps, and
        compute the rest again; see `cylstm.LSTM.forward`.
    seed : int, optional
        Of the order of the data and of dropout: the same seed, the same bits.
    checkpoint : path-like, optional
        A file to which the run is written after each epoch, when interrupted, and after every
        `checkpoint_every` batches. If it is there, the run goes on from it, to the same bits as if
        it had never stopped; delete it to begin anew. Whether it can be written is seen before the
        first batch.
    checkpoint_every : int, optional
        See `checkpoint`.
    metrics : list of str and callable, or mapping of str to such, optional
        What to measure beside the loss: "accuracy" and "perplexity" of labels, "mae", "mse" and
        "rmse" of numbers, or functions of (prediction, target) that return a number. Of ragged
        sequences they are given the steps that count, (S, ...). A batch's value is weighed by how
        many targets count, as its loss is.
    progress : bool, default False
        Whether to show a bar, for which tqdm must be installed.

    Returns
    -------
    History
        The losses and more, epoch by epoch, those before a resumption included.

    Raises
    ------
    Diverged
        If the loss or a gradient becomes infinite or NaN. It says at which batch, and what to try;
        the model is that of the step before. Also if there is patience, but no epoch had a finite
        validation loss.
    KeyboardInterrupt
        If the user interrupts: at once, but never amid a step, so the model is that of a whole one.
    ValueError, TypeError
        If an argument is out of its range, the optimizer was made for another model, the data gives
        no batch, or the checkpoint is that of another run, or damaged.
    OSError
        If the checkpoint cannot be read or written.
    ImportError
        If a bar is asked for without tqdm.

    Warns
    -----
    RuntimeWarning
        The first time that the validation's loss is NaN or infinite.

    Notes
    -----
    The epoch's training loss is the mean of its batches', weighed by the numbers of targets that
    count. The same seed gives the same bits on one machine with one number of threads.

    Examples
    --------
    Which of two numbers came last?

    >>> from cylstm.train import Adam, Last, Linear, Sequential, cross_entropy_loss
    >>> rng = np.random.default_rng(0)
    >>> target = rng.integers(2, size=200)
    >>> x = rng.normal(size=(10, 200, 1)).astype(np.float32)
    >>> x[-1, :, 0] = target
    >>> model = Sequential(cylstm.LSTM(1, 8, seed=0), Last(), Linear(8, 2, seed=0))
    >>> history = fit(model, (x, target), cross_entropy_loss, Adam(model, 1e-2), epochs=20, seed=0)
    >>> history.loss[-1] < 0.1 * history.loss[0]
    True
    """
    if checkpoint_every is not None and checkpoint is None:
        raise ValueError("checkpoint: expected a path beside checkpoint_every, got None")
    if patience is not None and validation is None:
        raise ValueError("validation: expected data beside patience, got None")
    layer = as_layer(model)
    _check_callable("loss", loss)
    if schedule is not None:
        _check_callable("schedule", schedule)
    _check_optimizer(layer, optimizer)
    run = Run(
        model=layer,
        data=as_data(layer, data, batch_size, shuffle=True),
        loss=loss,
        optimizer=optimizer,
        epochs=checks.whole("epochs", epochs),
        steps_per_epoch=_optional("steps_per_epoch", steps_per_epoch, 1),
        validation=None
        if validation is None
        else as_data(layer, validation, batch_size, shuffle=False, name="validation"),
        patience=_optional("patience", patience, 0),
        schedule=schedule,
        clip_norm=None if clip_norm is None else positive("clip_norm", clip_norm),
        clip_value=None if clip_value is None else positive("clip_value", clip_value),
        segment=_optional("segment", segment, 1),
        seed=_optional("seed", seed, 0),
        checkpoint=checkpoint,
        checkpoint_every=_optional("checkpoint_every", checkpoint_every, 1),
        batch_size=checks.whole("batch_size", batch_size, 1),
        metrics=as_metrics(metrics),
    )
    if checkpoint is not None:
        run.check_checkpoint()
        if os.path.exists(checkpoint):
            run.resume()
    with Bar(progress, run.total, run.taken) as run.bar, Interrupts() as run.interrupts:
        run.train()
    return run.history


def evaluate(model: Layer | LSTM, data: Any, loss: Loss, *, batch_size: int = 32) -> float:
    """Return the mean loss of a model over data, without training.

    Parameters
    ----------
    model, data, loss
        As for `fit`.
    batch_size : int, default 32
        Of data given as arrays.

    Raises
    ------
    ValueError
        If the data gives no batch.

    Examples
    --------
    >>> from cylstm.train import Linear, mse_loss
    >>> x = np.ones((10, 2), np.float32)
    >>> model = Linear(2, 1, bias=False, seed=0)
    >>> evaluate(model, (x, model(x)), mse_loss)
    0.0
    """
    layer = as_layer(model)
    _check_callable("loss", loss)
    return mean_loss(layer, as_data(layer, data, batch_size, shuffle=False), loss)


def _check_callable(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {short(value)}")


def _check_optimizer(model: Layer, optimizer: Any) -> None:
    """Refuse an optimizer whose steps would change another model than the one to be trained."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {short(optimizer)}")
    own, others = (dict(m.named_parameters()) for m in (model, optimizer._model))
    if optimizer._model is not model and (
        own.keys() != others.keys()
        or not all(_is_same(parameter, others[name]) for name, parameter in own.items())
    ):
        raise ValueError(
            "optimizer: expected one made for this model, got one made for another, which it would "
            f"train instead: make it of this one, {type(optimizer).__name__}(model)"
        )


def _is_same(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    """Whether two arrays are the same numbers in memory."""
    places = [(array.ctypes.data, array.shape, array.strides) for array in (first, second)]
    return places[0] == places[1]


def _optional(name: str, value: int | None, lowest: int) -> int | None:
    return None if value is None else checks.whole(name, value, lowest)
