"""The reference itself, against PyTorch where PyTorch has the option."""

import pytest

import reference

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("lengths", [None, (5, 1, 3)], ids=["full", "ragged"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"bias": False},
        {"num_layers": 3},
        {"bidirectional": True},
        {"proj_size": 2},
        {"num_layers": 2, "bidirectional": True, "proj_size": 3},
    ],
    ids=str,
)
def test_reference_is_pytorch(rng, config, lengths):
    torch.manual_seed(0)
    model = torch.nn.LSTM(3, 4, dtype=torch.float64, **config)
    parameters = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for name in [name for name in parameters if name.startswith("bias_ih")]:
        suffix = name.removeprefix("bias_ih")
        parameters["bias" + suffix] = parameters.pop(name) + parameters.pop("bias_hh" + suffix)
    runs = model.num_layers * (1 + model.bidirectional)
    x = rng.standard_normal((5, 3, 3))
    state = rng.standard_normal((runs, 3, model.proj_size or 4)), rng.standard_normal((runs, 3, 4))

    y, (h_n, c_n) = reference.forward(parameters, x, state, lengths, **config)

    for n, length in enumerate(lengths or (5, 5, 5)):
        alone, *start = (torch.from_numpy(a[:, n].copy()) for a in (x[:length], *state))
        with torch.no_grad():
            y_n, (h, c) = model(alone, tuple(start))
        reference.assert_close(
            (y[:length, n], h_n[:, n], c_n[:, n]), (y_n.numpy(), h.numpy(), c.numpy()), 1e-12
        )
        assert not y[length:, n].any()


@pytest.fixture
def parameters(rng):
    return {
        "weight_ih_l0": rng.standard_normal((8, 3)),
        "weight_hh_l0": rng.standard_normal((8, 2)),
    }


def test_reverse_reads_from_the_end(rng, parameters):
    x = rng.standard_normal((5, 2, 3))
    y, state = reference.forward(parameters, x, reverse=True)
    flipped, expected = reference.forward(parameters, x[::-1])
    reference.assert_same_bits((y, state), (flipped[::-1], expected))


def test_batch_first_and_unbatched_only_move_axes(rng, parameters):
    x = rng.standard_normal((5, 2, 3))
    h, c = rng.standard_normal((2, 1, 2, 2))
    y, (h_n, c_n) = reference.forward(parameters, x, (h, c), [4, 2])
    reference.assert_same_bits(
        reference.forward(parameters, x.swapaxes(0, 1), (h, c), [4, 2], batch_first=True),
        (y.swapaxes(0, 1), (h_n, c_n)),
    )
    reference.assert_same_bits(
        reference.forward(parameters, x[:, 1], (h[:, 1], c[:, 1]), 2),
        (y[:, 1], (h_n[:, 1], c_n[:, 1])),
    )
