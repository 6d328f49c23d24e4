"""cylstm itself, called as a user would."""

from __future__ import annotations

from functools import partial

import cylstm
from benchmarks.benchmarks.common import Problem, make_call
from benchmarks.benchmarks.programs import ours
from benchmarks.peers.libraries import Way

DISTRIBUTIONS = ["cylstm", "numpy", "scipy"]
set_threads = cylstm.set_num_threads
program = ours


def inference(problem: Problem) -> dict:
    if problem.shape.steps == 1:
        return {"step": lambda: Way(make_call(problem), lambda y: {"y": y[None]})}
    return {"call": lambda: Way(make_call(problem), outputs)}


def outputs(result) -> dict:
    y, (h_n, c_n) = result
    return {"y": y, "h_n": h_n, "c_n": c_n}


def training(problem: Problem) -> dict:
    return {"forward, backward": partial(forward_backward, problem)}


def forward_backward(problem: Problem) -> Way:
    def arrays(result):
        x, (h_0, c_0), parameters = result
        return {"x": x, "h_0": h_0, "c_0": c_0, **parameters}

    return Way(make_call(problem, training=True), arrays)
