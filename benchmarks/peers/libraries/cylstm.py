"""cylstm itself, called as a user would."""

from __future__ import annotations

from functools import partial

import cylstm
import numpy as np
from benchmarks.benchmarks.common import Problem, make_lstm
from benchmarks.peers.libraries import Way

DISTRIBUTIONS = ["cylstm", "numpy", "scipy"]
set_threads = cylstm.set_num_threads


def inference(problem: Problem) -> dict:
    return {"step": partial(step, problem)} if problem.shape.steps == 1 else {
        "call": partial(whole, problem)}  # fmt: skip


def step(problem: Problem) -> Way:
    stream = make_lstm(problem).stream(problem.shape.batch)
    out = np.empty((problem.shape.batch, problem.shape.hidden_size), np.float32)
    return Way(partial(stream.step, problem.x[0], out=out), lambda y: {"y": y[None]})


def whole(problem: Problem) -> Way:
    lengths = {} if problem.lengths is None else {"lengths": problem.lengths}

    def arrays(result):
        y, (h_n, c_n) = result
        return {"y": y, "h_n": h_n, "c_n": c_n}

    return Way(partial(make_lstm(problem), problem.x, **lengths), arrays)


def training(problem: Problem) -> dict:
    return {"forward, backward": partial(forward_backward, problem)}


def forward_backward(problem: Problem) -> Way:
    lstm, state = make_lstm(problem), (problem.h_0, problem.c_0)

    def call():
        _, _, tape = lstm.forward(problem.x, state)
        return lstm.backward(tape, problem.grad_y)

    def arrays(result):
        x, (h_0, c_0), parameters = result
        return {"x": x, "h_0": h_0, "c_0": c_0, **parameters}

    return Way(call, arrays)
