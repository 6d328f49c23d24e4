"""Weights of fewer bits: a step, a sequence, and batches; and what they cost in accuracy."""

import numpy as np

from .common import Shape, make_lstm, make_problem, use

SHAPES = [
    Shape(1, 1, 256, 256),
    Shape(100, 1, 256, 256),
    Shape(100, 8, 128, 128),
    Shape(50, 64, 256, 256),
]
WEIGHTS = ["int8", "bfloat16"]
THREADS = [1, 2]


def quantized(problem, weights):
    lstm = make_lstm(problem)
    if not hasattr(lstm, "quantize"):
        raise NotImplementedError("this commit cannot")
    return lstm, lstm.quantize(weights)


class Quantized:
    params = (SHAPES, WEIGHTS, THREADS)
    param_names = ("shape", "weights", "threads")

    def setup(self, shape, weights, threads):
        use(threads)
        problem = make_problem(shape)
        _, fast = quantized(problem, weights)
        x = problem.x
        if shape.steps == 1:
            stream = fast.stream(shape.batch)
            self.call = lambda: stream.step(x[0])
        else:
            self.call = lambda: fast(x)
        self.call()

    def time_call(self, *_):
        self.call()


class QuantizedError:
    params = (SHAPES[1:], WEIGHTS)
    param_names = ("shape", "weights")

    def track_rms_of_h(self, shape, weights):
        use()
        problem = make_problem(shape)
        lstm, fast = quantized(problem, weights)
        return float(np.sqrt(np.mean((fast(problem.x)[0] - lstm(problem.x)[0]) ** 2)))

    track_rms_of_h.unit = "beside float32"
