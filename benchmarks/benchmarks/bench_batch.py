"""Batches of sequences of one length."""

from .common import BATCHES, DTYPES, PRODUCTS, THREADS, Call


class Batch(Call):
    params = [BATCHES, DTYPES, THREADS, PRODUCTS]

    def time_call(self, *_):
        self.call()
