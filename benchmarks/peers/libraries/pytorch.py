"""PyTorch: eager, and as frozen TorchScript; ragged batches as a PackedSequence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.benchmarks.common import Problem
from benchmarks.benchmarks.programs import MAX_NORM, Program
from benchmarks.peers.libraries import Way

DISTRIBUTIONS = ["torch"]


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def state_dict(problem: Problem) -> dict[str, torch.Tensor]:
    state = {}
    for name, array in problem.weights.items():
        tensor = torch.from_numpy(array.copy())
        if name.startswith("bias"):
            state[name.replace("bias", "bias_ih")] = tensor
            state[name.replace("bias", "bias_hh")] = torch.zeros_like(tensor)
        else:
            state[name] = tensor
    return state


def make_lstm(problem: Problem) -> torch.nn.LSTM:
    shape = problem.shape
    lstm = torch.nn.LSTM(
        shape.input_size, shape.hidden_size, shape.layers, bidirectional=shape.directions == 2
    )
    lstm.load_state_dict(state_dict(problem))
    return lstm.eval()


def outputs(result) -> dict:
    y, (h_n, c_n) = result
    return {"y": y, "h_n": h_n, "c_n": c_n}


def inference(problem: Problem) -> dict:
    if problem.shape.steps == 1:
        return {"eager": partial(step, problem, frozen=False),
                "TorchScript": partial(step, problem, frozen=True),
                "LSTMCell": partial(step_of_cell, problem)}  # fmt: skip
    if problem.lengths is not None:
        return {"PackedSequence": partial(packed, problem)}
    return {"eager": partial(whole, problem, frozen=False),
            "TorchScript": partial(whole, problem, frozen=True)}  # fmt: skip


def frozen_lstm(problem: Problem) -> torch.nn.Module:
    return torch.jit.freeze(torch.jit.script(make_lstm(problem)))


def whole(problem: Problem, frozen: bool) -> Way:
    lstm = frozen_lstm(problem) if frozen else make_lstm(problem)
    return Way(partial(lstm, torch.from_numpy(problem.x)), outputs, torch.inference_mode)


def step(problem: Problem, frozen: bool) -> Way:
    lstm = frozen_lstm(problem) if frozen else make_lstm(problem)
    x = torch.from_numpy(problem.x)
    state = torch.from_numpy(problem.h_0), torch.from_numpy(problem.c_0)

    def call():
        nonlocal state
        y, state = lstm(x, state)
        return y

    return Way(call, lambda y: {"y": y}, torch.inference_mode)


def step_of_cell(problem: Problem) -> Way:
    cell = torch.nn.LSTMCell(problem.shape.input_size, problem.shape.hidden_size)
    cell.load_state_dict({n.replace("_l0", ""): w for n, w in state_dict(problem).items()})
    x = torch.from_numpy(problem.x[0])
    state = torch.from_numpy(problem.h_0[0]), torch.from_numpy(problem.c_0[0])

    def call():
        nonlocal state
        state = cell(x, state)
        return state[0]

    return Way(call, lambda h: {"y": h[None]}, torch.inference_mode)


def packed(problem: Problem) -> Way:
    lstm, x = make_lstm(problem), torch.from_numpy(problem.x)
    lengths = torch.from_numpy(problem.lengths)
    steps = problem.shape.steps

    def call():
        y, state = lstm(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(y, total_length=steps)[0], state

    return Way(call, outputs, torch.inference_mode)


def training(problem: Problem) -> dict:
    return {"eager": partial(forward_backward, problem)}


def forward_backward(problem: Problem) -> Way:
    lstm = make_lstm(problem).train()
    inputs = {name: torch.from_numpy(getattr(problem, name).copy()).requires_grad_()
              for name in ("x", "h_0", "c_0")}  # fmt: skip
    names = [*inputs, *(name for name, _ in lstm.named_parameters())]
    wanted = [*inputs.values(), *lstm.parameters()]
    grad_y = torch.from_numpy(problem.grad_y)

    def call():
        y, _ = lstm(inputs["x"], (inputs["h_0"], inputs["c_0"]))
        return torch.autograd.grad(y, wanted, grad_y)

    def arrays(grads):
        named = zip(names, map(np.asarray, grads), strict=True)
        return {n.replace("bias_ih", "bias"): g for n, g in named if not n.startswith("bias_hh")}

    return Way(call, arrays)


def program(given: Program) -> tuple[Callable[[], float], Callable[[], torch.Tensor]]:
    """As `benchmarks.benchmarks.programs.ours`: Adam fused, scoring in `inference_mode`."""
    x, target = map(torch.from_numpy, given.data())
    wide = given.directions * given.hidden_size
    model = torch.nn.ModuleDict()
    if given.words:
        model["embedding"] = torch.nn.Embedding(given.words, given.input_size)
    model["lstm"] = torch.nn.LSTM(
        given.input_size, given.hidden_size, given.layers,
        bidirectional=given.directions == 2,
    )  # fmt: skip
    model["linear"] = torch.nn.Linear(wide, given.outputs)
    state = {}
    for name, array in given.parameters().items():
        state[name.replace("lstm.bias", "lstm.bias_ih")] = tensor = torch.from_numpy(array)
        if name.startswith("lstm.bias"):
            state[name.replace("lstm.bias", "lstm.bias_hh")] = torch.zeros_like(tensor)
    model.load_state_dict(state)
    # One bias, as we have: two would take two steps of Adam at once.
    biases = [p for name, p in model.named_parameters() if "bias_hh" in name]
    for bias in biases:
        bias.requires_grad_(False)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, fused=True)

    def forward() -> torch.Tensor:
        y, _ = model["lstm"](model["embedding"](x) if given.words else x)
        return model["linear"](y if given.words else y[-1])

    def step() -> float:
        optimizer.zero_grad()
        y = forward()
        if given.words:
            loss = torch.nn.functional.cross_entropy(y.flatten(0, 1), target.flatten())
        else:
            loss = torch.nn.functional.mse_loss(y, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, MAX_NORM)
        optimizer.step()
        return loss.item()

    return step, torch.inference_mode()(forward)
