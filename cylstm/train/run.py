"""A training run: its steps and epochs, what ends it, and how it goes on from a checkpoint."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from reprlib import repr as short
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.layers.base import Layer
from cylstm.layers.outputs import taken
from cylstm.train.batches import Batch, as_batch, epoch_of
from cylstm.train.checkpoint import (
    check_checkpoint,
    check_tensors,
    read_checkpoint,
    write_checkpoint,
)
from cylstm.train.gradients import (
    Gradient,
    clip_grad_norm,
    clip_grad_value,
    first_nonfinite,
    norm_of,
)
from cylstm.train.history import History
from cylstm.train.metrics import Mean, Measures, Metric, count_of
from cylstm.train.optimizers import Optimizer

__all__ = ["Diverged", "Loss", "Run", "Schedule", "mean_loss"]

Array = npt.NDArray[Any]
Loss = Callable[..., tuple[float, Array]]
Schedule = Callable[[int, Sequence[float]], float]


class Diverged(ArithmeticError):
    """A loss or a gradient that is infinite or NaN; the model is that of the step before."""


def mean_loss(
    model: Layer, data: Any, loss: Loss, name: str = "data", measures: Measures | None = None
) -> float:
    """Return the mean loss over data, without training; measures are added to."""
    mean, state = Mean(), None
    for given in epoch_of(data, np.random.default_rng(0)):
        batch = as_batch(given, name)
        before = state if batch.follows else None
        prediction, state = model.run(batch.x, **_of_batch(model, batch, before))
        mask = _mask(model, batch)
        value, _ = _loss_of(loss, prediction, batch, mask)
        count = count_of(batch.target, mask)
        mean.add(value, count)
        if measures is not None:
            measures.add(measures.of(prediction, batch.target, mask), count)
    if not mean.weight:
        raise ValueError(f"{name}: expected at least one batch, got none")
    return mean.value


@dataclasses.dataclass
class Run:
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
    segment: int | None
    seed: int | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int | None
    batch_size: int
    metrics: tuple[Metric, ...] = ()

    batch: int = 0  # of the epoch: how many are done
    taken: int = 0  # from an iterator, in all epochs
    mean: Mean = dataclasses.field(default_factory=Mean)
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
        self.measures = Measures(self.metrics)  # of the epoch
        self.resumed = False
        self.replaced: Any = None  # what a checkpoint with a carried state took the place of

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history.loss)

    @property
    def total(self) -> int | None:
        """How many batches all epochs have, where that is known."""
        size = self.steps_per_epoch
        if size is None and hasattr(self.data, "__len__"):
            size = len(self.data)
        return None if size is None else size * self.epochs

    def train(self) -> None:
        """Do the epochs that are left; with patience, end with the best model."""
        try:
            while self.epoch < self.epochs and not self.history.stopped:
                self._train_epoch()
        except KeyboardInterrupt:
            self._save()
            raise
        if self.patience is not None and self.epoch:
            if self.best is None:
                raise Diverged(
                    "validation: expected a finite loss after at least one epoch, got "
                    f"{self.history.validation[-1]} after the last of {self.epoch} and no other; "
                    "the model is that of the last epoch"
                )
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
        batches = epoch_of(self.data, self._rng(0))
        if self.resumed:  # pass over what the run before has seen
            seen = self.taken if batches is self.data else self.batch
            next(itertools.islice(batches, seen, seen), None)
            self.resumed = False
        if self.steps_per_epoch is not None:
            batches = itertools.islice(batches, self.steps_per_epoch - self.batch)
        return map(as_batch, batches)

    def _rng(self, number: int) -> np.random.Generator:
        """The generator of the epoch's order (0), or of its batch `number`."""
        return np.random.default_rng([self.seed, self.epoch, number])

    def _train_step(self, batch: Batch) -> None:
        before, mask = self.carried if batch.follows else None, _mask(self.model, batch)
        with np.errstate(over="ignore", invalid="ignore"):  # looked for here, and explained
            value, grads, after, prediction = self._gradients(batch, before, mask)
            norm = self._clip(grads)
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Diverged(self._explain(batch, value, grads))
        if self.schedule is not None:
            rate = self.schedule(self.optimizer.steps, self.history.judged)
            self.optimizer.lr = checks.finite("schedule(step, losses)", rate)
        measured = self.measures.of(prediction, batch.target, mask)
        with self.interrupts.held():
            self.optimizer.step(grads)
            count = count_of(batch.target, mask)
            self.mean.add(value, count)
            self.measures.add(measured, count)
            self.largest_norm = max(self.largest_norm, norm)
            self.carried = after
            self.batch += 1
            self.taken += 1
        self.bar.update()

    def _gradients(
        self, batch: Batch, before: Any, mask: Array | None
    ) -> tuple[float, dict[str, Gradient], Any, Array]:
        """The loss, the parameters' gradients, the state after the batch, the prediction."""
        needs_rng = "rng" in self.model.takes
        given = _of_batch(self.model, batch, before) | taken(
            self.model,
            rng=self._rng(1 + self.batch) if needs_rng else None,
            segment=self.segment,
        )
        try:
            prediction, tape = self.model.forward(batch.x, **given)
        except (TypeError, ValueError) as error:
            if self.replaced is None or before is None:
                raise
            self._load(*self.replaced)
            raise ValueError(
                f"{os.fspath(self.checkpoint)}: carried: expected a state for the batch to go on "
                f"with: {error}"
            ) from error
        self.replaced = None
        value, gradient = _loss_of(self.loss, prediction, batch, mask)
        _, grads = self.model.backward(tape, gradient)
        return value, grads, self.model.state_after(tape), prediction

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
        judged, measured = None, Measures(self.metrics)
        if self.validation is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # looked for here, and told
                judged = mean_loss(self.model, self.validation, self.loss, "validation", measured)
            self._warn_of(judged)
        with self.interrupts.held():
            history = self.history
            if judged is not None:
                history.validation.append(judged)
                _append(history.validation_metrics, measured.values())
            _append(history.metrics, self.measures.values())
            history.loss.append(self.mean.value)
            history.lr.append(self.optimizer.lr)
            history.grad_norm.append(self.largest_norm)
            self.mean, self.batch, self.largest_norm, self.carried = Mean(), 0, 0.0, None
            self.measures = Measures(self.metrics)
            if self.patience is not None:
                if history.waited == 0:
                    self.best = self.model.state_dict()
                history.stopped = history.waited >= max(self.patience, 1)
        self.bar.tell(history)

    def _warn_of(self, judged: float) -> None:
        """Tell the first loss of a validation that is not finite."""
        if not math.isfinite(judged) and all(map(math.isfinite, self.history.validation)):
            warnings.warn(
                f"validation: expected a finite loss, got {judged} after epoch {self.epoch + 1}; "
                "such an epoch is never the best",
                RuntimeWarning,
                stacklevel=6,  # the caller of fit
            )

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
            "segment": self.segment,
        }
        if self.metrics:
            settings["metrics"] = [metric.name for metric in self.metrics]
        if self.schedule is None:
            settings["lr"] = self.first_lr
        elif dataclasses.is_dataclass(self.schedule):
            settings["schedule"] = repr(self.schedule)
        return settings

    def _contents(self) -> tuple[dict[str, Any], dict[str, dict[str, Array]]]:
        """What a checkpoint holds beside the carried state: numbers, and groups of tensors."""
        numbers = {
            "settings": self._settings(),
            "batch": self.batch,
            "taken": self.taken,
            "mean": dataclasses.asdict(self.mean),
            "measures": {n: dataclasses.asdict(m) for n, m in self.measures.means.items()},
            "largest_norm": self.largest_norm,
            "history": dataclasses.asdict(self.history),
            "optimizer_steps": self.optimizer.steps,
            "lr": self.optimizer.lr,
        }
        groups = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.best is not None:
            groups["best"] = self.best
        return numbers, groups

    def check_checkpoint(self) -> None:
        """See, before any batch, that the run can be written."""
        check_checkpoint(self.checkpoint, *self._contents())

    def _save(self) -> None:
        if self.checkpoint is not None:
            write_checkpoint(self.checkpoint, *self._contents(), self.carried)

    def resume(self) -> None:
        """Go to where the checkpoint is, which is checked before anything is changed.

        But for the carried state: only the batch that goes on with it can tell whether it fits.
        """
        numbers, groups, carried = read_checkpoint(self.checkpoint)
        settings, history = numbers["settings"], History(**numbers["history"])
        if not self.seed_was_given:
            self.seed = settings["seed"]
        self._check_settings(settings, history)
        before, expected = self._contents()
        self.replaced = None if carried is None else (before, dict(expected))
        if self.patience is not None and history.best_epoch is not None:
            expected["best"] = expected["model"]
        check_tensors(self.checkpoint, groups, expected)
        self._load(numbers, groups)
        self.batch, self.taken = numbers["batch"], numbers["taken"]
        self.mean, self.largest_norm = Mean(**numbers["mean"]), numbers["largest_norm"]
        measured = {name: Mean(**mean) for name, mean in numbers["measures"].items()}
        self.measures = Measures(self.metrics, measured)
        self.history, self.best = history, groups.get("best")
        self.carried, self.resumed = carried, True

    def _load(self, numbers: dict[str, Any], groups: dict[str, dict[str, Array]]) -> None:
        """Set the model and the optimizer to what a checkpoint holds."""
        self.model.load_state_dict(groups.get("model", {}))
        self.optimizer.load_state_dict(groups.get("optimizer", {}), numbers["optimizer_steps"])
        self.optimizer.lr = numbers["lr"]

    def _check_settings(self, settings: dict[str, Any], history: History) -> None:
        """Refuse to go on with another run's checkpoint."""
        own = json.loads(json.dumps(self._settings()))  # tuples become lists
        of_checkpoint = dict(settings)
        if history.loss:  # before the first epoch's end, a run with validation looks like others
            own["validation"] = self.validation is not None
            of_checkpoint["validation"] = bool(history.validation)
        for name in own | of_checkpoint:
            expected, got = own.get(name), of_checkpoint.get(name)
            if expected != got:
                raise ValueError(
                    f"checkpoint: {os.fspath(self.checkpoint)} is of a run with another {name}: "
                    f"expected {expected!r}, got {short(got)}; delete the file to begin anew"
                )


def _append(lists: dict[str, list[float]], values: dict[str, float]) -> None:
    for name, value in values.items():
        lists.setdefault(name, []).append(value)


def _of_batch(model: Layer, batch: Batch, before: Any) -> dict[str, Any]:
    """Return what a batch has beside x, as far as the model takes it."""
    if batch.resets is not None and "resets" not in model.takes:
        raise ValueError(f"resets: expected none for a model that takes none, {short(model)}")
    given = taken(model, state=before, lengths=batch.lengths)
    return given if batch.resets is None else given | {"resets": batch.resets}


def _mask(model: Layer, batch: Batch) -> Array | None:
    """The steps of a ragged batch that count, if the output has steps."""
    if batch.lengths is None or not model.keeps_time:
        return None
    if batch.x.ndim < 2:
        raise ValueError(f"x: expected sequences side by side, got shape {batch.x.shape}")
    steps, size = batch.x.shape[1::-1] if model.batch_first else batch.x.shape[:2]
    mask = np.arange(steps)[:, None] < checks.lengths(batch.lengths, steps, size)
    return mask.T if model.batch_first else mask


def _loss_of(
    loss: Loss, prediction: Array, batch: Batch, mask: Array | None
) -> tuple[float, Array]:
    where = {} if mask is None else {"where": mask}
    given = loss(prediction, batch.target, **where)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"loss: expected it to return (value, gradient), got {short(given)}")
    return checks.real("loss", given[0]), given[1]
