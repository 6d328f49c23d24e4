"""What PyTorch's modules and files say of an LSTM, and what they do not."""

import warnings

import numpy as np
import pytest

import cylstm

torch = pytest.importorskip("torch")
TOLERANCE = 2e-6

pytestmark = [  # of PyTorch's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
]

OPTIONS = [
    {"batch_first": True},
    {"batch_first": True, "bidirectional": True, "num_layers": 2, "dropout": 0.25},
    {"batch_first": True, "proj_size": 2, "bias": False},
    {"num_layers": 3, "dropout": 1e-5},
]


class Model(torch.nn.Module):
    """An LSTM and what reads it."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = torch.nn.LSTM(3, 4, **options)
        width = (1 + self.rnn.bidirectional) * (self.rnn.proj_size or 4)
        self.head = torch.nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Empty(torch.nn.LSTM):
    """A module whose truth is False."""

    def __len__(self):
        return 0


def scripted(model, path):
    return torch.jit.script(model)


def traced(model, path):
    return torch.jit.trace(model, torch.zeros(2, 5, 3))


def compiled(model, path):
    return torch.compile(model)


def parallel(model, path):
    return torch.nn.DataParallel(model)


def saved(model, path):
    torch.save(model, path)
    return path


def saved_before(model, path):
    torch.save({"epoch": 1, "model": model}, path, _use_new_zipfile_serialization=False)
    return path


def saved_scripted(model, path):
    torch.jit.script(model).save(path)
    return path


def saved_traced(model, path):
    traced(model, path).save(path)
    return path


def within(model, path):
    return torch.nn.Sequential(torch.jit.script(model))


def in_a_checkpoint(model, path):
    return {"epoch": 1, "model": model}


FORMS = [
    scripted, traced, compiled, parallel, saved, saved_before, saved_scripted, saved_traced, within,
    in_a_checkpoint,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_those_of_the_module(form, options, tmp_path):
    model = Model(**options).eval()
    lstm = cylstm.from_torch(form(model, tmp_path / "model"))  # without a warning
    expected = cylstm.LSTM(3, 4, **options).config
    assert {name: lstm.config[name] for name in expected} == expected
    x = torch.randn(2, 5, 3)
    with torch.no_grad():
        np.testing.assert_allclose(lstm(x.numpy())[0], model.rnn(x)[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, Empty])
def test_a_module_is_asked_whatever_its_truth(kind):
    module = kind(3, 4, batch_first=True, num_layers=2, dropout=0.5)
    lstm = cylstm.from_torch(module)
    assert (lstm.batch_first, lstm.dropout) == (True, 0.5)
    assert cylstm.from_torch(torch.nn.Sequential(module)).batch_first


@pytest.mark.parametrize("kept", ["state", "file", "safetensors", "npz"])
@pytest.mark.parametrize("prefix", ["", "a.b."])
def test_who_does_not_say_batch_first_is_warned_of(kept, prefix, tmp_path):
    state = {prefix + n: t for n, t in torch.nn.LSTM(3, 4, batch_first=True).state_dict().items()}
    source = state if kept == "state" else tmp_path / "m"
    if kept == "file":
        torch.save(state, source)
    elif kept == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, source)
    elif kept == "npz":
        with open(source, "wb") as file:
            np.savez_compressed(file, **{name: tensor.numpy() for name, tensor in state.items()})
    with pytest.warns(UserWarning, match="batch_first: .* give batch_first=True or False") as seen:
        assert not cylstm.from_torch(source).batch_first
    assert seen[0].filename == __file__
    for given in (True, False):
        assert cylstm.from_torch(source, batch_first=given).batch_first is given


def test_a_cell_has_no_batch_first():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cylstm.from_torch(torch.nn.LSTMCell(3, 4).state_dict()).hidden_size == 4


CONTRADICTIONS = {
    "num_layers": 2, "bidirectional": True, "proj_size": 1, "hidden_size": 5, "input_size": 4,
    "bias": False, "mode": "GRU",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CONTRADICTIONS.items())
def test_a_module_that_contradicts_its_weights_is_refused(name, value, tmp_path):
    module = torch.nn.LSTM(3, 4)
    setattr(module, name, value)
    torch.save(module, tmp_path / "m.pt")
    for source in (module, tmp_path / "m.pt"):
        with pytest.raises(ValueError, match=f"expected {name}=.*got {name}={value!r}"):
            cylstm.from_torch(source)


def test_options_of_another_kind_are_not_taken_for_the_lstms():
    class Cell(torch.nn.LSTMCell):
        def __init__(self):
            super().__init__(3, 4)
            self.__dict__["dropout"] = torch.nn.Dropout(0.5)

    assert cylstm.from_torch(Cell()).dropout == 0


def test_code_that_calls_several_lstms_tells_what_they_agree_on(tmp_path):
    from cylstm.formats.torchscript import options

    call = "    _1, _2, _3 = torch.lstm(x, [h, c], w, True, {}, 0.25, False, False, {})\n"
    text = (
        "class A(Module):\n" + call.format(1, True) + call.format(2, True) + "\nclass B(Module):\n"
    )
    told = options("__torch__.m A", {"__torch__/m.py": text}.get)
    assert told == {"bias": True, "dropout": 0.25, "bidirectional": False, "batch_first": True}
    assert options("__torch__.m B", {"__torch__/m.py": text}.get) == {}
    assert options("__torch__.n A", {"__torch__/m.py": text}.get) == {}
