"""Streaming: one step after another."""

from .common import DTYPES, PRODUCTS, STREAMS, Call


class Stream(Call):
    params = [STREAMS, DTYPES, [1], PRODUCTS]

    def time_step(self, *_):
        self.call()
