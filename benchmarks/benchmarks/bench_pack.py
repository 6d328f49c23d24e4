"""What a change of the parameters costs: weights are packed again at the next use."""

import numpy as np

from .common import STREAMS, make_lstm, make_problem, use


class Pack:
    params = [STREAMS]
    param_names = ("shape",)

    def setup(self, shape):
        use()
        problem = make_problem(shape)
        self.lstm, self.x = make_lstm(problem), problem.x
        self.bias = np.array(self.lstm.bias_l0)
        self.time_step_after_change()

    def time_step_after_change(self, *_):
        self.lstm.bias_l0 = self.bias
        self.lstm(self.x)
