"""An input that is one of some vectors at each step, such as an embedding's, not yet taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cylstm.core.weights import Version

__all__ = ["LookedUp", "pays_in_training"]

_OF_A_STEP = 32  # multiply-adds of one unit that a step's way to its vector's gradient is worth


@dataclass(frozen=True, eq=False)
class LookedUp:
    """What ``vectors[ids]`` is as an input, for a network that can do with the two.

    Attributes
    ----------
    vectors : array, (K, I)
        C-contiguous.
    ids : array of intp, (T, N), (N, T) or (T,)
        From 0 to K - 1; no one writes to it.
    version : Version, optional
        Of the vectors, if these stay where they are.
    """

    vectors: np.ndarray
    ids: np.ndarray
    version: Version | None = None

    @property
    def has_steps(self) -> bool:
        """Whether a recurrent layer takes ids of such a shape, and so many."""
        return self.ids.ndim in (1, 2) and self.ids.size < 2**31

    def taken(self) -> np.ndarray:
        """Return the input itself."""
        return np.take(self.vectors, self.ids, axis=0, mode="clip")  # they are in range: quicker


def pays_in_training(steps: int, vectors: int, inputs: int) -> bool:
    """Whether products for each of the vectors that occur are less work than for each step."""
    return 3 * inputs * (steps - vectors) > _OF_A_STEP * steps
