"""One sequence."""

from .common import DTYPES, PRODUCTS, SEQUENCES, THREADS, Call


class Sequence(Call):
    params = [SEQUENCES, DTYPES, THREADS, PRODUCTS]

    def time_call(self, *_):
        self.call()
