"""How far answers are from the reference in float64."""

import numpy as np

from . import reference
from .common import (
    DTYPES,
    INFERENCE,
    PRODUCTS,
    STREAMS,
    TRAINING,
    make_call,
    make_problem,
    use,
)  # fmt: skip

WRONG = 1e9


def largest_error(actual, expected):
    """Of arrays by name, relative to each one's largest value."""
    errors = [
        np.abs(actual[name] - right).max() / np.abs(right).max() for name, right in expected.items()
    ]
    # A NaN would be taken for a benchmark that was skipped, not for a wrong answer.
    return float(np.nan_to_num(errors, nan=WRONG).max())


class Inference:
    params = [[shape for shape in INFERENCE if shape not in STREAMS], DTYPES, PRODUCTS]
    param_names = ("shape", "dtype", "product")
    timeout = 300

    def setup(self, shape, dtype, product):
        use(product=product)
        self.problem = make_problem(shape, dtype)

    def track_largest_error(self, *_):
        problem = self.problem
        y, (h_n, c_n) = make_call(problem)()
        return largest_error({"y": y, "h_n": h_n, "c_n": c_n}, reference.outputs(problem))

    track_largest_error.unit = "of the largest value"


class Training:
    params = [TRAINING, DTYPES]
    param_names = ("shape", "dtype")
    timeout = 300

    def setup(self, shape, dtype):
        use()
        self.problem = make_problem(shape, dtype, training=True)

    def track_largest_error(self, *_):
        problem = self.problem
        x, (h_0, c_0), parameters = make_call(problem, training=True)()
        actual = {"x": x, "h_0": h_0, "c_0": c_0, **parameters}
        return largest_error(actual, reference.gradients(problem))

    track_largest_error.unit = "of the largest value"
