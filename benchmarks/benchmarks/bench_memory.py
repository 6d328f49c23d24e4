"""The largest memory of a process that imports cylstm and calls it, or trains a step."""

from .common import INFERENCE, TRAINING, make_call, make_problem, use


class Inference:
    params = [INFERENCE]
    param_names = ("shape",)

    def setup(self, shape):
        use()
        self.call = make_call(make_problem(shape))

    def peakmem_call(self, _):
        self.call()


class Training:
    params = [TRAINING]
    param_names = ("shape",)

    def setup(self, shape):
        use()
        self.call = make_call(make_problem(shape, training=True), training=True)

    def peakmem_step(self, _):
        self.call()
