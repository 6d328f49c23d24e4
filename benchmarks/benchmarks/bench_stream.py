"""Streaming: one step after another."""

import numpy as np

from .common import DTYPES, PRODUCTS, STREAMS, make_lstm, make_problem, use


class Stream:
    params = [STREAMS, DTYPES, PRODUCTS]
    param_names = ("shape", "dtype", "product")

    def setup(self, shape, dtype, product):
        use(product=product)
        problem = make_problem(shape, dtype)
        self.stream, self.x = make_lstm(problem).stream(shape.batch), problem.x[0]
        self.out = np.full((shape.batch, shape.hidden_size), 0, dtype)
        self.stream.step(self.x, out=self.out)

    def time_step(self, *_):
        self.stream.step(self.x, out=self.out)
