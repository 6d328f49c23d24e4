"""The baseline of the language examples: an n-gram model with back-off, in NumPy.

Interpolated Kneser-Ney: each order gives a part of its probability, the discount, to the order
below, which counts in how many contexts a token was seen, not how often.

R. Kneser and H. Ney, "Improved backing-off for m-gram language modeling", ICASSP 1995; S. F. Chen
and J. Goodman, "An empirical study of smoothing techniques for language modeling", 1998.
"""

import numpy as np


class NGram:
    """A model of the next token, given the `order - 1` before it.

    `tokens` are integers from 0 to `size - 1`; `size ** order` must fit in 63 bits.
    """

    def __init__(self, tokens, order, size):
        if size**order >= 2**63:
            raise ValueError(f"order: expected size**order below 2**63, got {size}**{order}")
        self.order, self.size = order, size
        grams, counts = np.unique(self._codes(tokens, order), return_counts=True)
        self.levels = [_Level(grams, counts, size)]
        for shorter in range(order - 1, 0, -1):  # how many tokens were seen before each
            grams, counts = np.unique(grams % size**shorter, return_counts=True)
            self.levels.append(_Level(grams, counts, size))

    def probabilities(self, tokens):
        """Return the probability of each token, but for the first `order - 1`, which are given."""
        codes = self._codes(tokens, self.order)
        p = np.full(len(codes), 1 / self.size)
        for length, level in enumerate(reversed(self.levels), start=1):
            p = level.probabilities(codes % self.size**length, p)
        return p

    def _codes(self, tokens, length):
        """Return each run of `length` tokens as one integer."""
        codes = np.zeros(len(tokens) - length + 1, np.int64)
        for i in range(length):
            codes = codes * self.size + tokens[i : len(codes) + i]
        return codes


class _Level:
    """The counts of one length."""

    def __init__(self, grams, counts, size):
        once, twice = (np.count_nonzero(counts == n) for n in (1, 2))
        self.discount = once / (once + 2 * twice) if once else 0.5
        self.grams, self.counts, self.size = grams, counts, size
        self.contexts, first = np.unique(grams // size, return_index=True)
        self.totals = np.add.reduceat(counts, first)
        self.kinds = np.diff(np.append(first, len(grams)))  # of tokens after each context

    def probabilities(self, codes, shorter):
        """Discount what was counted, and share out the rest as the shorter contexts say."""
        counts = look_up(self.grams, self.counts, codes)
        totals = look_up(self.contexts, self.totals, codes // self.size)
        kinds = look_up(self.contexts, self.kinds, codes // self.size)
        seen, total = totals > 0, np.maximum(totals, 1)
        own = np.maximum(counts - self.discount, 0) + self.discount * kinds * shorter
        return np.where(seen, own / total, shorter)


def look_up(keys, values, wanted):
    """Return the values of sorted keys, 0 for one that is not there."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
