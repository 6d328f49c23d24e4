"""What a training run has been through, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["History"]


@dataclass
class History:
    """One number an epoch in each list; made by `fit`.

    Attributes
    ----------
    loss : list of float
        The mean training loss over the epoch.
    validation : list of float
        The validation's after it, where there is one.
    lr : list of float
        The learning rate of its last step.
    grad_norm : list of float
        The largest norm of the gradients in it, before clipping.
    metrics, validation_metrics : dict of str to list of float
        The metrics by name, over the training's batches as they were when each was trained on, and
        over the validation.
    stopped : bool
        Whether the patience ended the run.

    Examples
    --------
    >>> history = History(loss=[2.0, 1.0, 0.5], validation=[2.0, 1.5, 1.7])
    >>> history.best_epoch
    1
    """

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    stopped: bool = False
    metrics: dict[str, list[float]] = field(default_factory=dict)
    validation_metrics: dict[str, list[float]] = field(default_factory=dict)

    @property
    def judged(self) -> list[float]:
        """The losses that say how good an epoch was: the validation's, else the training's."""
        return self.validation or self.loss

    @property
    def best_epoch(self) -> int | None:
        """The (first) epoch with the lowest of them, counted from 0.

        A loss that is NaN or infinite is never the lowest; None where there is no other.
        """
        finite = [loss for loss in self.judged if math.isfinite(loss)]
        return self.judged.index(min(finite)) if finite else None

    @property
    def waited(self) -> int:
        """How many epochs have gone by since the best, or, without one, since the start."""
        best = -1 if self.best_epoch is None else self.best_epoch
        return len(self.judged) - 1 - best

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the losses over the epochs.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            Where to; new ones by default.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn; ``axes.figure.savefig(path)`` makes it a file.

        Raises
        ------
        ImportError
            If matplotlib is not installed; it says what to install.
        """
        if axes is None:
            try:
                from matplotlib.figure import Figure
            except ImportError:
                raise ImportError(
                    "plot: expected matplotlib, which is not installed: "
                    "python -m pip install 'cylstm[train]'"
                ) from None
            axes = Figure(layout="constrained").subplots()
        for label, values in (("training", self.loss), ("validation", self.validation)):
            if values:
                axes.plot(range(1, len(values) + 1), values, label=label)
        axes.set(title="Mean loss after each epoch", xlabel="epoch", ylabel="loss")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        return axes
