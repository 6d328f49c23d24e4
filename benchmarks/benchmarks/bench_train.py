"""Training: forward with its tape, backward, and both as one step."""

from .common import DTYPES, THREADS, TRAINING, forward_backward, make_lstm, make_problem, use


class Train:
    params = [TRAINING, DTYPES, THREADS]
    param_names = ("shape", "dtype", "threads")

    def setup(self, shape, dtype, threads):
        use(threads)
        self.problem = make_problem(shape, dtype, training=True)
        self.lstm = make_lstm(self.problem)
        self.tape = self.forward()
        self.time_backward()

    def forward(self):
        problem = self.problem
        _, _, tape = self.lstm.forward(problem.x, (problem.h_0, problem.c_0), problem.lengths)
        return tape

    def time_forward(self, *_):
        self.forward()

    def time_backward(self, *_):
        self.lstm.backward(self.tape, self.problem.grad_y)

    def time_step(self, *_):
        forward_backward(self.lstm, self.problem)
