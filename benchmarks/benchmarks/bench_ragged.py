"""Batches of sequences of many lengths."""

from .common import DTYPES, PRODUCTS, RAGGED, THREADS, Call


class Ragged(Call):
    params = [RAGGED, DTYPES, THREADS, PRODUCTS]

    def time_call(self, *_):
        self.call()
