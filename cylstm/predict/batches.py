"""Ragged sequences in batches of like lengths, scored side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.core.team import get_num_threads, limit_threads_here
from cylstm.predict.model import Predictor
from cylstm.predict.outputs import Outputs
from cylstm.predict.ragged import Ragged

__all__ = ["LEAST_TOKENS", "Pending", "Scorers", "batches_of", "scorers_for"]

LEAST_TOKENS, MOST_TOKENS = 4096, 16_384  # of a batch, by default
_BATCH_BYTES = 2**24  # of its numbers, in the widest place of a model
_SHARES = 8  # batches a thread has at least, so that all end together


def _tokens_for(predictor: Predictor) -> int:
    """Return how many steps a batch has at most, if nobody says.

    Of more each call's own time counts less; too many are no longer in the cache. Where a batch has
    an effect on the last bits, they are always as many.
    """
    if not predictor.is_exact:
        return LEAST_TOKENS
    return max(LEAST_TOKENS, min(MOST_TOKENS, _BATCH_BYTES // predictor.step_bytes))


def batches_of(lengths: np.ndarray, tokens: int, alike: bool) -> Iterator[np.ndarray]:
    """Divide sequences into batches of up to so many steps with padding, the longest first.

    Parameters
    ----------
    lengths : array of int, (N,)
    tokens : int
        A batch of one sequence may have more.
    alike : bool
        Whether a batch must have sequences of one length.

    Examples
    --------
    >>> [rows.tolist() for rows in batches_of(np.array([2, 9, 3, 2]), 6, alike=False)]
    [[1], [2, 0], [3]]
    """
    order = np.argsort(-lengths, kind="stable")
    falling = lengths[order]
    begin = 0
    while begin < len(order):
        longest = int(falling[begin])
        end = begin + max(1, tokens // max(1, longest))
        if alike:
            end = min(end, int(np.searchsorted(-falling, -longest, side="right")))
        yield order[begin:end]
        begin = end


class Pending:
    """Sequences on their way: their batches are scored by other threads.

    Attributes
    ----------
    arrays : dict of str to array
        The outputs, (S, F) or (N, F), complete once `result` has returned.
    """

    def __init__(self, ragged: Ragged, outputs: Outputs) -> None:
        self.ragged, self.outputs = ragged, outputs
        self.lengths = ragged.lengths
        first = int(ragged.offsets[0])
        if first:  # outputs begin at the first step
            ragged = Ragged(ragged.values[first : ragged.offsets[-1]], ragged.offsets - first)
            self.ragged = ragged
        self.arrays = outputs.allocate(int(ragged.offsets[-1]), len(ragged))
        self.futures: list[Future[int]] = []

    def result(self) -> dict[str, np.ndarray]:
        """Wait for the outputs."""
        for future in self.futures:
            future.result()
        return self.arrays

    def score(self, rows: np.ndarray, threads: int) -> int:
        """Score one batch; return how many sequences it has."""
        limit_threads_here(threads)
        outputs, predictor = self.outputs, self.outputs.predictor
        lengths = self.lengths[rows]
        places = self.ragged.places(rows, lengths, predictor.batch_first)
        x = self.ragged.values[places]
        ragged = bool((lengths != lengths[0]).any())
        given = lengths if ragged else None
        if outputs.kind == "state":
            for name, array in predictor.states(predictor.run(x, given)[1]).items():
                self.arrays[name][rows] = array
            return len(rows)
        own = self.arrays["prediction"]
        if not outputs.per_step:
            y = predictor.run_last(x, given)
            own[rows] = outputs.of(y if predictor.has_axis else y[..., None])
            return len(rows)
        y, _ = predictor.run(x, given)
        y = y if predictor.has_axis else y[..., None]
        if ragged:
            real = _real(lengths, predictor.batch_first)
            own[places[real]] = outputs.of(y[real])
        else:
            own[places] = outputs.of(y)
        return len(rows)


def _real(lengths: np.ndarray, batch_first: bool) -> np.ndarray:
    """Return which steps of a batch are no padding."""
    steps = np.arange(int(lengths.max(initial=0)))
    return steps < lengths[:, None] if batch_first else steps[:, None] < lengths


class Scorers:
    """Threads that score batches side by side.

    Parameters
    ----------
    threads : int, optional
        How many; as many as `cylstm.get_num_threads` says by default.
    batch_tokens : int
        How many steps, with padding, a batch has at most.
    """

    def __init__(self, threads: int | None, batch_tokens: int) -> None:
        self.threads = get_num_threads() if threads is None else checks.whole("threads", threads, 1)
        self.batch_tokens = checks.whole("batch_tokens", batch_tokens, 1)
        self._pool = ThreadPoolExecutor(self.threads, "cylstm-score")
        # Not behind the batches that wait: what comes after scoring would be late.
        self._beside = ThreadPoolExecutor(self.threads, "cylstm-beside")

    def __enter__(self) -> Scorers:
        return self

    def __exit__(self, *error: Any) -> None:
        for pool in (self._pool, self._beside):
            pool.shutdown(wait=True, cancel_futures=True)

    def run(self, work: Callable[..., Any], *given: Any) -> Future[Any]:
        """Do something else beside the scoring."""
        return self._beside.submit(work, *given)

    def submit(self, ragged: Ragged, outputs: Outputs) -> Pending:
        """Begin to score sequences."""
        pending = Pending(ragged, outputs)
        alike, tokens = not outputs.predictor.takes_lengths, self.batch_tokens
        if outputs.predictor.is_exact:
            share = int(pending.lengths.sum()) // (_SHARES * self.threads)
            tokens = min(tokens, max(LEAST_TOKENS, share))
        batches = list(batches_of(pending.lengths, tokens, alike))
        # A few long sequences leave threads for the work within each.
        threads = max(1, self.threads // max(1, len(batches)))
        pending.futures = [self._pool.submit(pending.score, rows, threads) for rows in batches]
        return pending


def scorers_for(predictor: Predictor, threads: int | None, batch_tokens: int | None) -> Scorers:
    """Return threads for a model's batches, of as many steps as is said or as suits the model."""
    return Scorers(threads, _tokens_for(predictor) if batch_tokens is None else batch_tokens)
