"""The training loop: `fit` trains a model, `evaluate` judges it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.lstm import LSTM
from cylstm.train.batches import Arrays, Batch, Source
from cylstm.train.checkpoint import read_checkpoint, write_checkpoint
from cylstm.train.gradients import (
    Gradient,
    clip_grad_norm,
    clip_grad_value,
    first_nonfinite,
    norm_of,
    positive,
)
from cylstm.train.history import History
from cylstm.train.layers import Layer, as_layer, taken
from cylstm.train.losses import IGNORED
from cylstm.train.optimizers import Optimizer

__all__ = ["Diverged", "evaluate", "fit"]

Array = npt.NDArray[Any]
Loss = Callable[..., tuple[float, Array]]
Schedule = Callable[[int, Sequence[float]], float]


class Diverged(ArithmeticError):
    """A loss or a gradient that is infinite or NaN; the model is that of the step before."""


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
    seed: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
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
        after the last epoch, the one of the best epoch.
    schedule : callable, optional
        ``schedule(step, losses)`` gives the learning rate, from the number of steps taken and the
        losses of the epochs so far.
    clip_norm, clip_value : float, optional
        Bounds on the gradients' norm, all together, and on each number; the latter comes first.
    seed : int, optional
        Of the order of the data and of dropout: the same seed, the same bits.
    checkpoint : path-like, optional
        A file to which the run is written after each epoch, when interrupted, and after every
        `checkpoint_every` batches. If it is there, the run goes on from it, to the same bits as if
        it had never stopped; delete it to begin anew.
    checkpoint_every : int, optional
        See `checkpoint`.
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
        the model is that of the step before.
    KeyboardInterrupt
        If the user interrupts: at once, but never amid a step, so the model is that of a whole one.
    ValueError, TypeError
        If an argument is out of its range, the data gives no batch, or the checkpoint is that of
        another run.
    ImportError
        If a bar is asked for without tqdm.

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
    run = _Run(
        model=layer,
        data=_as_data(layer, data, batch_size, shuffle=True),
        loss=loss,
        optimizer=optimizer,
        epochs=checks.whole("epochs", epochs),
        steps_per_epoch=_optional("steps_per_epoch", steps_per_epoch, 1),
        validation=None
        if validation is None
        else _as_data(layer, validation, batch_size, shuffle=False),
        patience=_optional("patience", patience, 0),
        schedule=schedule,
        clip_norm=None if clip_norm is None else positive("clip_norm", clip_norm),
        clip_value=None if clip_value is None else positive("clip_value", clip_value),
        seed=_optional("seed", seed, 0),
        checkpoint=checkpoint,
        checkpoint_every=_optional("checkpoint_every", checkpoint_every, 1),
        batch_size=batch_size,
    )
    if checkpoint is not None and os.path.exists(checkpoint):
        run.resume()
    with _Bar(run, progress) as run.bar, _Interrupts() as run.interrupts:
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
    return _evaluate(layer, _as_data(layer, data, batch_size, shuffle=False), loss)


def _evaluate(model: Layer, data: Any, loss: Loss) -> float:
    mean, state = _Mean(), None
    for batch in map(_as_batch, _epoch(data, np.random.default_rng(0))):
        given = taken(model, state=state if batch.follows else None, lengths=batch.lengths)
        prediction, state = model.run(batch.x, **given)
        mask = _mask(model, batch)
        value, _ = _loss_of(loss, prediction, batch, mask)
        mean.add(value, _count(batch.target, mask))
    if not mean.weight:
        raise ValueError("data: expected at least one batch, got none")
    return mean.value


@dataclasses.dataclass
class _Mean:
    """The mean loss of batches, each weighed by how many targets count."""

    total: float = 0.0
    weight: int = 0

    def add(self, loss: float, count: int) -> None:
        self.total += loss * count
        self.weight += count

    @property
    def value(self) -> float:
        return self.total / self.weight


@dataclasses.dataclass
class _Run:
    """A training run: what it was asked for, and where it is."""

    model: Layer
    data: Any
    loss: Loss
    optimizer: Optimizer
    epochs: int
    steps_per_epoch: int | None
    validation: Any
    patience: int | None
    schedule: Schedule | None
    clip_norm: float | None
    clip_value: float | None
    seed: int | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int | None
    batch_size: int

    batch: int = 0  # of the epoch: how many are done
    taken: int = 0  # from an iterator, in all epochs
    mean: _Mean = dataclasses.field(default_factory=_Mean)
    largest_norm: float = 0.0
    carried: Any = None  # the state after the last batch
    best: dict[str, Array] | None = None
    history: History = dataclasses.field(default_factory=History)
    bar: Any = None
    interrupts: Any = None

    def __post_init__(self) -> None:
        self.seed_was_given = self.seed is not None
        if self.seed is None:
            self.seed = secrets.randbits(32)
        self.first_lr = self.optimizer.lr
        self.resumed = False

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history.loss)

    def train(self) -> None:
        try:
            while self.epoch < self.epochs and not self.history.stopped:
                self._train_epoch()
        except KeyboardInterrupt:
            self._save()
            raise
        if self.patience is not None and self.best is not None:
            self.model.load_state_dict(self.best)

    def _train_epoch(self) -> None:
        for batch in self._batches():
            self._train_step(batch)
            if self.checkpoint_every and self.batch % self.checkpoint_every == 0:
                self._save()
        if not self.mean.weight:
            raise ValueError(
                f"data: expected batches for epoch {self.epoch + 1}, got none; "
                "an iterator gives its batches once: give a list or a Source"
            )
        self._end_epoch()
        self._save()

    def _batches(self) -> Iterator[Batch]:
        """The rest of the epoch's batches."""
        batches = _epoch(self.data, self._rng(0))
        if self.resumed:  # pass over what the run before has seen
            seen = self.taken if batches is self.data else self.batch
            next(itertools.islice(batches, seen, seen), None)
            self.resumed = False
        if self.steps_per_epoch is not None:
            batches = itertools.islice(batches, self.steps_per_epoch - self.batch)
        return map(_as_batch, batches)

    def _rng(self, number: int) -> np.random.Generator:
        """The generator of the epoch's order (0), or of its batch `number`."""
        return np.random.default_rng([self.seed, self.epoch, number])

    def _train_step(self, batch: Batch) -> None:
        before, mask = self.carried if batch.follows else None, _mask(self.model, batch)
        with np.errstate(over="ignore", invalid="ignore"):  # looked for here, and explained
            value, grads, after = self._gradients(batch, before, mask)
            norm = self._clip(grads)
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Diverged(self._explain(batch, value, grads))
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(self.optimizer.steps, self.history.judged)
        with self.interrupts.held():
            self.optimizer.step(grads)
            self.mean.add(value, _count(batch.target, mask))
            self.largest_norm = max(self.largest_norm, norm)
            self.carried = after
            self.batch += 1
            self.taken += 1
        self.bar.update()

    def _gradients(
        self, batch: Batch, before: Any, mask: Array | None
    ) -> tuple[float, dict[str, Gradient], Any]:
        """The loss, the parameters' gradients and the state after the batch."""
        needs_rng = "rng" in self.model.takes
        given = taken(
            self.model,
            state=before,
            lengths=batch.lengths,
            rng=self._rng(1 + self.batch) if needs_rng else None,
        )
        prediction, tape = self.model.forward(batch.x, **given)
        value, gradient = _loss_of(self.loss, prediction, batch, mask)
        _, grads = self.model.backward(tape, gradient)
        return value, grads, self.model.state_after(tape)

    def _clip(self, grads: dict[str, Gradient]) -> float:
        """Bound the gradients; return their norm before. What is not finite stays so."""
        bound = math.inf if self.clip_norm is None else self.clip_norm
        if self.clip_value is None:
            return clip_grad_norm(grads, bound, error_if_nonfinite=False)
        norm = norm_of(grads)
        if math.isfinite(norm):
            clip_grad_value(grads, self.clip_value)
            clip_grad_norm(grads, bound)
        return norm

    def _explain(self, batch: Batch, value: float, grads: dict[str, Gradient]) -> str:
        """Say what diverged, where, and what to try."""
        what = f"the loss is {value}" if not math.isfinite(value) else first_nonfinite(grads)
        where = f"at batch {self.batch + 1} of epoch {self.epoch + 1}"
        for name, array in (("x", batch.x), ("target", batch.target)):
            if not np.isfinite(array).all():
                return f"{what} {where}: its {name} holds NaN or infinity; mend the data"
        try_next = [f"a smaller learning rate (it was {self.optimizer.lr:g})"]
        if self.clip_norm is None:
            try_next.append("clip_norm=1.0")
        try_next.append("a schedule with warm-up, inputs scaled to about -1 to 1, or float64")
        return f"{what} {where}; try {', '.join(try_next)}"

    def _end_epoch(self) -> None:
        judged = None
        if self.validation is not None:
            judged = _evaluate(self.model, self.validation, self.loss)
        with self.interrupts.held():
            history = self.history
            if judged is not None:
                history.validation.append(judged)
            history.loss.append(self.mean.value)
            history.lr.append(self.optimizer.lr)
            history.grad_norm.append(self.largest_norm)
            self.mean, self.batch, self.largest_norm, self.carried = _Mean(), 0, 0.0, None
            if self.patience is not None:
                waited = self.epoch - 1 - history.best_epoch
                if waited == 0:
                    self.best = self.model.state_dict()
                history.stopped = waited > 0 and waited >= self.patience
        self.bar.tell(history)

    # The checkpoint

    def _settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on to the same bits."""
        settings = {
            "model": getattr(self.model, "config", None),
            "optimizer": [type(self.optimizer).__name__, self.optimizer.config],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "patience": self.patience,
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
        }
        if self.schedule is None:
            settings["lr"] = self.first_lr
        elif dataclasses.is_dataclass(self.schedule):
            settings["schedule"] = repr(self.schedule)
        return settings

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        numbers = {
            "settings": self._settings(),
            "batch": self.batch,
            "taken": self.taken,
            "mean": dataclasses.asdict(self.mean),
            "largest_norm": self.largest_norm,
            "history": dataclasses.asdict(self.history),
            "optimizer_steps": self.optimizer.steps,
            "lr": self.optimizer.lr,
        }
        groups = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.best is not None:
            groups["best"] = self.best
        write_checkpoint(self.checkpoint, numbers, groups, self.carried)

    def resume(self) -> None:
        """Go to where the checkpoint is."""
        numbers, groups, carried = read_checkpoint(self.checkpoint)
        settings = numbers["settings"]
        if not self.seed_was_given:
            self.seed = settings["seed"]
        self._check_settings(settings)
        self.model.load_state_dict(groups["model"])
        self.optimizer.load_state_dict(groups.get("optimizer", {}), numbers["optimizer_steps"])
        self.optimizer.lr = numbers["lr"]
        self.batch, self.taken = numbers["batch"], numbers["taken"]
        self.mean, self.largest_norm = _Mean(**numbers["mean"]), numbers["largest_norm"]
        self.history, self.best = History(**numbers["history"]), groups.get("best")
        self.carried, self.resumed = carried, True

    def _check_settings(self, settings: dict[str, Any]) -> None:
        """Refuse to go on with another run's checkpoint."""
        own = json.loads(json.dumps(self._settings()))  # tuples become lists
        differ = [name for name in own | settings if own.get(name) != settings.get(name)]
        if differ:
            name = differ[0]
            raise ValueError(
                f"checkpoint: {os.fspath(self.checkpoint)} is of a run with another {name}: "
                f"expected {own.get(name)!r}, got {settings.get(name)!r}; "
                "delete the file to begin anew"
            )


class _Bar:
    """A progress bar over all batches, or nothing."""

    def __init__(self, run: _Run, wanted: bool) -> None:
        self._bar = None
        if not checks.is_true_or_false("progress", wanted):
            return
        try:
            from tqdm import tqdm
        except ImportError:
            raise ImportError(
                "progress: expected tqdm, which is not installed: "
                "python -m pip install 'cylstm[train]', or progress=False"
            ) from None
        size = run.steps_per_epoch
        if size is None and hasattr(run.data, "__len__"):
            size = len(run.data)
        total = None if size is None else size * run.epochs
        self._bar = tqdm(total=total, initial=run.taken, unit="batch")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        """One batch more."""
        if self._bar is not None:
            self._bar.update()

    def tell(self, history: History) -> None:
        """Show the last epoch's losses."""
        if self._bar is not None:
            shown = {"epoch": len(history.loss), "loss": f"{history.loss[-1]:.4g}"}
            if history.validation:
                shown["validation"] = f"{history.validation[-1]:.4g}"
            self._bar.set_postfix(shown)


class _Interrupts:
    """Ctrl-C while training: it comes at once, or, where it is held, at the end of that block."""

    def __init__(self) -> None:
        self._before: Any = None
        self._holds = self._came = False

    def __enter__(self) -> _Interrupts:
        # Outside the main thread no interrupt comes; a handler set in C could not be put back.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
        if self._before is not None:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: Any) -> None:
        if self._holds:
            self._came = True
        elif callable(self._before):
            self._before(number, frame)
        else:  # what the system does, or nothing
            signal.signal(signal.SIGINT, self._before)
            signal.raise_signal(signal.SIGINT)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it wait until the block's end."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False
            if self._came:
                self._came = False
                self._handle(signal.SIGINT, None)


def _optional(name: str, value: int | None, lowest: int) -> int | None:
    return None if value is None else checks.whole(name, value, lowest)


def _as_data(model: Layer, data: Any, batch_size: int, *, shuffle: bool) -> Source | Iterable[Any]:
    """What gives batches, of what the user calls data."""
    if not isinstance(data, tuple) or isinstance(data, Batch):
        if isinstance(data, Source) or (isinstance(data, Iterable) and not hasattr(data, "ndim")):
            return data
        raise TypeError(
            "data: expected a Source, a tuple of arrays or an iterable of batches, "
            f"got {type(data).__name__}"
        )
    if len(data) not in (2, 3):
        raise ValueError(f"data: expected (x, target) or (x, target, lengths), got {len(data)}")
    x_axis = 1 if model.batch_first is False else 0
    axes = x_axis, x_axis if model.keeps_time else 0
    lengths = data[2] if len(data) == 3 else None
    return Arrays(*data[:2], batch_size, lengths=lengths, axes=axes, shuffle=shuffle)


def _epoch(data: Source | Iterable[Any], rng: np.random.Generator) -> Iterator[Any]:
    return data.epoch(rng) if isinstance(data, Source) else iter(data)


def _as_batch(given: Any) -> Batch:
    if isinstance(given, Batch):
        return given
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise TypeError(
            "data: expected batches (x, target) or (x, target, lengths), "
            f"got {type(given).__name__}"
        )
    return Batch(*given)


def _mask(model: Layer, batch: Batch) -> Array | None:
    """The steps of a ragged batch that count, if the output has steps."""
    if batch.lengths is None or not model.keeps_time:
        return None
    steps = batch.x.shape[1 if model.batch_first else 0]
    mask = np.arange(steps)[:, None] < np.asarray(batch.lengths)
    return mask.T if model.batch_first else mask


def _loss_of(
    loss: Loss, prediction: Array, batch: Batch, mask: Array | None
) -> tuple[float, Array]:
    if mask is None:
        return loss(prediction, batch.target)
    return loss(prediction, batch.target, where=mask)


def _count(target: Array, mask: Array | None) -> int:
    """How many elements of a target count."""
    if target.dtype.kind == "f":
        count = target.size if mask is None else np.count_nonzero(mask)
        return int(count if mask is None else count * math.prod(target.shape[mask.ndim :]))
    labels = target if mask is None else target[mask]
    return int(np.count_nonzero(labels != IGNORED))
