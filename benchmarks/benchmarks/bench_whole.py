"""Whole programs: a training step with loss, clipping and optimizer, and a model that scores."""

import numpy as np

from .common import THREADS, use
from .programs import PROGRAMS, ours


class Whole:
    params = [PROGRAMS, THREADS]
    param_names = ("program", "threads")

    def setup(self, program, threads):
        use(threads)
        self.step, self.score = ours(program)
        self.step()

    def time_step(self, *_):
        self.step()

    def time_score(self, *_):
        self.score()


class BesideNumPy:
    """An LSTM's call after a product of NumPy's, whose threads then look for work for a while."""

    params = [THREADS]
    param_names = ("threads",)

    def setup(self, threads):
        use(threads)
        import cylstm

        self.lstm = cylstm.LSTM(48, 256, seed=0)
        self.x = np.ones((64, 24, 48), np.float32)
        self.a = np.ones((400, 400), np.float32)
        self.lstm(self.x)

    def time_call_after_product(self, *_):
        self.a @ self.a
        self.lstm(self.x)
