"""The largest memory of a process that imports cylstm and calls it, or trains a step."""

from .common import BATCHES, RAGGED, SEQUENCES, STACKED, TRAINING, make_lstm, make_problem, use


class Memory:
    """The base of the two below."""

    param_names = ("shape",)

    def setup(self, shape):
        use()
        self.problem = make_problem(shape, training=True)
        self.lstm = make_lstm(self.problem)


class Inference(Memory):
    params = [[*SEQUENCES, *BATCHES, *STACKED, *RAGGED]]

    def peakmem_call(self, _):
        self.lstm(self.problem.x, lengths=self.problem.lengths)


class Training(Memory):
    params = [TRAINING]

    def peakmem_step(self, _):
        problem = self.problem
        _, _, tape = self.lstm.forward(problem.x, (problem.h_0, problem.c_0))
        self.lstm.backward(tape, problem.grad_y)
