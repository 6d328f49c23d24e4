"""Stacked and bidirectional."""

from .common import DTYPES, PRODUCTS, STACKED, THREADS, Call


class Stacked(Call):
    params = [STACKED, DTYPES, THREADS, PRODUCTS]

    def time_call(self, *_):
        self.call()
