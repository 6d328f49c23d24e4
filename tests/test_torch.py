"""Sixty random configurations against torch.nn.LSTM, forward and backward."""

import numpy as np
import pytest

import cylstm
from reference import assert_close, assert_gradients_close, assert_same_bits, random_case

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

GRADIENT_TOLERANCE = {"float32": 5e-5, "float64": 1e-11}


def random_config(rng):
    hidden = int(rng.integers(2, 40))
    return {
        "input_size": int(rng.integers(1, 40)),
        "hidden_size": hidden,
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.integers(2)),
        "batch_first": bool(rng.integers(2)),
        "bidirectional": bool(rng.integers(2)),
        "proj_size": int(rng.integers(1, hidden)) if rng.integers(2) else 0,
    }


def torch_lstm(config):
    config = config | {"dtype": getattr(torch, config["dtype"])}
    return torch.nn.LSTM(**config)


def run_torch(model, x, state, lengths):
    if lengths is None:
        return model(x, state)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, lengths, batch_first=model.batch_first, enforce_sorted=False
    )
    packed, state = model(packed, state)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(
        packed, batch_first=model.batch_first, total_length=x.shape[1 if model.batch_first else 0]
    )
    return y, state


@pytest.mark.parametrize("seed", range(60))
def test_forward_and_backward(seed, dtype):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    config = random_config(rng) | {"dtype": dtype}
    kind = ["full", "ragged", "unbatched"][seed % 3]
    steps, batch = int(rng.integers(1, 13)), int(rng.integers(1, 9))
    case = random_case(rng, steps, None if kind == "unbatched" else batch, **config)
    if kind == "ragged":
        case.lengths = rng.integers(1, steps, batch, endpoint=True)  # PyTorch refuses zero
    if seed % 4 == 0:
        case.state = None
    model = torch_lstm(config)
    case.lstm.load_state_dict(model.state_dict())

    x = torch.from_numpy(case.x).requires_grad_()
    state = case.state and tuple(torch.from_numpy(s).requires_grad_() for s in case.state)
    y, (h_n, c_n) = run_torch(model, x, state, case.lengths)
    outputs = [y, h_n, c_n]
    torch.autograd.backward(outputs, [torch.from_numpy(g) for g in (case.grad_y, *case.grad_state)])
    expected = {"x": x.grad}
    if state:
        expected |= {"h_0": state[0].grad, "c_0": state[1].grad}
    # Each of PyTorch's two biases has the gradient of their sum.
    expected |= {
        name.replace("bias_ih", "bias"): parameter.grad
        for name, parameter in model.named_parameters()
        if "bias_hh" not in name
    }

    actual = case.gradients()
    if not state:
        del actual["h_0"], actual["c_0"]
    expected = {name: gradient.numpy() for name, gradient in expected.items()}
    assert_close(case.lstm(*case.inputs), [output.detach().numpy() for output in outputs])
    assert_gradients_close(actual, expected, GRADIENT_TOLERANCE[dtype])


@pytest.mark.parametrize("seed", range(8))
def test_state_dict_goes_back(seed, dtype):
    rng = np.random.default_rng(seed)
    config = random_config(rng) | {"dtype": dtype}
    case = random_case(rng, 5, 3, **config)
    model = torch_lstm(config)
    state_dict = case.lstm.state_dict(torch=True)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state_dict.items()})
    with torch.no_grad():
        y, state = model(torch.from_numpy(case.x), tuple(map(torch.from_numpy, case.state)))
    expected = y.numpy(), tuple(s.numpy() for s in state)
    assert_close(case.lstm(*case.inputs), expected)
    assert list(state_dict) == list(model.state_dict())


def test_tensors_are_arrays(rng):
    case = random_case(rng, 5, 3)
    tensors = case.lstm(torch.from_numpy(case.x), tuple(map(torch.from_numpy, case.state)))
    assert_same_bits(tensors, case.lstm(*case.inputs))


def test_defaults_are_those_of_torch():
    model, lstm = torch.nn.LSTM(3, 4), cylstm.LSTM(3, 4)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: a.shape for name, a in lstm.state_dict(torch=True).items()} == shapes
    assert lstm.weight_ih_l0.dtype == model.weight_ih_l0.numpy(force=True).dtype
