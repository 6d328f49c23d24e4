"""LSTMs, GRUs and RNNs that PyTorch made, without PyTorch.

What a file holds: `cylstm.formats.torch_files`; what its names mean:
`cylstm.formats.torch_names`. The names and shapes: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.family import Trainable
from cylstm.formats.parts import Cell, assemble, gru_cell
from cylstm.formats.torch_files import PLAIN, SAID, Contents, contents, contents_of_bytes
from cylstm.formats.torch_names import Named, find, others
from cylstm.formats.torch_tensors import packed_parts
from cylstm.io.files import is_path, pick
from cylstm.layers import Dropout, Embedding, LayerNorm, Linear, Sequential
from cylstm.layers.activations import Activation
from cylstm.layers.pooling import Pooling
from cylstm.options import STANDARD

__all__ = ["from_torch", "state_for_torch", "states_for_torch"]

_MOST_LISTED = 12
_DEEPEST = 64  # of dictionaries within each other


def from_torch(
    source: Any,
    prefix: str | None = None,
    *,
    batch_first: bool | None = None,
    forget_bias: float = 0.0,
    nonlinearity: str | None = None,
) -> Any:
    """Make an LSTM of a PyTorch one. PyTorch need not be installed, and nothing in a file is run.

    Where there is no LSTM, or `prefix` names another, a GRU or an RNN is made in the same way.

    Parameters
    ----------
    source : module, mapping or path-like
        A ``torch.nn.LSTM`` or ``LSTMCell``, or a module that holds some, scripted, traced, compiled
        or quantised too; a state dict of tensors or arrays, or a checkpoint that holds one; a file
        that ``torch.save`` wrote of any of these, in any of its formats, or TorchScript's; a
        safetensors file; a pickle of arrays, or an ``.npz`` of them; a zip archive of such files.
    prefix : str, optional
        Which LSTM of several: what stands before ``.weight_ih_l0``. In a checkpoint the names of
        all dictionaries down to the LSTM belong to it, joined by dots; its end is enough where no
        other LSTM's ends so.
    batch_first : bool, optional
        The LSTM's; by default what the module says of itself, in memory or in a file. A state dict
        does not say: then it is False, with a warning.
    forget_bias : float, default 0
        Added to the forget gates' biases: 1 for weights of TensorFlow 1's cells, which add it
        whenever they run.
    nonlinearity : {"tanh", "relu"}, optional
        Of an RNN; by default what the module says of itself. A state dict does not say, and is
        refused without.

    Returns
    -------
    LSTM, GRU or RNN
        Of the layers, directions, projection and bias that the names and shapes tell: float64 if
        the weights are, else float32. PyTorch's two biases are summed where the equations have
        one. Weights that the module computes (pruned, normalised, with dropout) are those that it
        uses in evaluation.

    Raises
    ------
    ValueError
        If there is no LSTM, or several and no `prefix` (the message lists them), or the LSTM has
        tensors that are not understood, or says of itself what they do not, or the file is damaged,
        or calls functions.
    TypeError
        If the source is of another kind.
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If nothing tells `batch_first`.

    See Also
    --------
    LSTM.to_torch : The way back.

    Examples
    --------
    >>> state = cylstm.LSTM(3, 4, num_layers=2, seed=0).state_dict(torch=True)
    >>> state = {f"encoder.lstm.{name}": array for name, array in state.items()}
    >>> cylstm.from_torch(state, batch_first=True)
    LSTM(3, 4, num_layers=2, batch_first=True)
    """
    with _open(source) as found:
        own = _choose(found, prefix)
        said = found.said(own.prefix)
        lstm = _make(found, own, said, batch_first, forget_bias, nonlinearity)
    if batch_first is None and "batch_first" not in said and not own.is_cell:
        warnings.warn(
            f"batch_first: a state dict does not say whether the {own.kind} takes (N, T, I): it "
            "was read as batch_first=False, which takes (T, N, I); give batch_first=True or False",
            UserWarning,
            stacklevel=2,
        )
    return lstm


def state_for_torch(lstm: Trainable[Any]) -> dict[str, Any]:
    """Return what `LSTM.to_torch` does."""
    lacking, kind = ("reverse", "peephole", "coupled", "clip"), lstm._options.kind
    changed = [name for name in lacking if lstm.config.get(name)]
    standard = STANDARD if kind == "LSTM" else STANDARD[:2]
    if lstm.config.get("activations", standard) != standard:
        changed.append("activations")
    if lstm.config.get("nonlinearity", "tanh") not in ("tanh", "relu"):
        changed.append("nonlinearity")
    if changed:
        one = "a GRU" if kind == "GRU" else f"an {kind}"
        raise ValueError(f"{', '.join(changed)}: expected {one} as PyTorch has it, got {lstm}")
    return _tensors(lstm.state_dict(torch=True))


def states_for_torch(model: Sequential) -> dict[str, Any]:
    """Return what `Sequential.to_torch` does."""
    state: dict[str, Any] = {}
    for i, layer in enumerate(model):
        if isinstance(layer, Trainable):
            own = state_for_torch(layer)
        elif type(layer) is Sequential:
            own = states_for_torch(layer)
        elif isinstance(layer, _PYTORCHS):
            own = _tensors(layer.state_dict())
        else:
            raise ValueError(f"layers[{i}]: expected a layer that PyTorch has, got {layer!r}")
        state |= {f"{i}.{name}": tensor for name, tensor in own.items()}
    return state


# With parameters of the same names and shapes, or without any.
_PYTORCHS = (Activation, Dropout, Embedding, LayerNorm, Linear, Pooling)


def _tensors(state: dict[str, np.ndarray]) -> dict[str, Any]:
    try:
        import torch
    except ModuleNotFoundError:
        return state
    return {name: torch.from_numpy(array) for name, array in state.items()}


# Sources --------------------------------------------------------------------------------------


def _open(source: Any) -> AbstractContextManager[Contents]:
    """Lend what a source holds."""
    if is_path(source):
        return contents(source)
    if not isinstance(source, Mapping) and not hasattr(source, "state_dict"):
        raise TypeError(
            f"source: expected a module, a state dict or a path, got {type(source).__name__}"
        )
    if hasattr(source, "save_to_buffer"):  # TorchScript, whose code alone tells its options
        return nullcontext(contents_of_bytes(source.save_to_buffer()))
    found = Contents()
    modules: dict[str, Any] = {}
    _flatten("", source, found.tensors, modules, 0)
    found.said = functools.partial(_said, modules)
    found.computed = functools.partial(_computed, modules)
    return nullcontext(found)


def _flatten(
    name: str, value: Any, tensors: dict[str, Any], modules: dict[str, Any], depth: int
) -> None:
    """Add the tensors of a module or of dictionaries within each other, by their joined names."""
    if depth > _DEEPEST:
        raise ValueError(f"{short(name)}: expected at most {_DEEPEST} dictionaries in each other")
    if hasattr(value, "state_dict") and hasattr(value, "get_submodule"):
        modules[name] = value
        value = value.state_dict()
    elif (packed := packed_parts(value)) is not None:
        value = packed
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = [(k, v) for k, v in enumerate(value) if isinstance(v, Mapping)]
    else:
        items = []
    for key, part in items:
        own = f"{name}.{key}" if name else str(key)
        if own in tensors:
            raise ValueError(f"{short(own)}: expected one tensor of this name, got two")
        if hasattr(part, "shape"):
            tensors[own] = part
        else:
            _flatten(own, part, tensors, modules, depth + 1)


def _module(modules: Mapping[str, Any], name: str) -> Any:
    """Return the module of this name, or None."""
    for root, module in modules.items():
        if name == root or name.startswith(f"{root}." if root else ""):
            try:
                return module.get_submodule(name[len(root) :].removeprefix("."))
            except AttributeError:
                return None
    return None


def _said(modules: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what the module of this name says of itself."""
    module = _module(modules, name)
    if hasattr(module, "save_to_buffer"):
        return dict(contents_of_bytes(module.save_to_buffer()).said(""))
    own = {key: getattr(module, key, None) for key in SAID}
    return {key: value for key, value in own.items() if isinstance(value, PLAIN)}


def _computed(modules: Mapping[str, Any], name: str, weight: str) -> Any:
    """Return the weight that a module's parametrization gives in evaluation, if it has one."""
    parametrizations = getattr(_module(modules, name), "parametrizations", None)
    if parametrizations is None or weight not in parametrizations:
        return None
    return copy.deepcopy(parametrizations[weight]).eval()()


# LSTMs ----------------------------------------------------------------------------------------


def _choose(found: Contents, prefix: str | None) -> Named:
    """Return the LSTM that `prefix` names, whose every tensor is understood."""
    recurrent = find(found.tensors)
    lstms = [name for name, own in recurrent.items() if own.kind]
    if not lstms:
        raise ValueError(_none_found(found))
    if prefix is not None:
        prefix = prefix.rstrip(".")
        ends = [name for name in lstms if name.endswith(f".{prefix}")]
        if prefix not in lstms and prefix and len(ends) == 1:
            prefix = ends[0]
    if prefix is None:  # of an LSTM, if there is one
        lstms = [name for name in lstms if recurrent[name].kind == "LSTM"] or lstms
    own = recurrent[pick("prefix", prefix, lstms)]
    if unknown := others(found.tensors, own):
        raise ValueError(
            f"{own.prefix or 'state dict'}: expected the tensors of an {own.kind} alone, got also "
            f"{_listed(unknown)}; what they do to it is not known"
        )
    return own


def _none_found(found: Contents) -> str:
    """Return a message that tells what there is."""
    message = "expected an LSTM, GRU or RNN, found none"
    if found.tensors:
        message += f"; there is {_listed(list(found.tensors))}"
    else:
        message += ", nor any tensor"
    return f"{message}; {found.note}" if found.note else message


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(short(name) for name in names[:_MOST_LISTED])
    return listed + (f" and {len(names) - _MOST_LISTED} more" * (len(names) > _MOST_LISTED))


def _make(
    found: Contents,
    named: Named,
    said: Mapping[str, Any],
    batch_first: bool | None,
    forget_bias: float,
    nonlinearity: str | None,
) -> Any:
    """Make an LSTM of its tensors and of what its module says of itself, which must agree."""
    own = named.resolve(found.computed)
    if named.packed:
        own = _by_layers(own, said)
    layers = 0
    while f"weight_ih_l{layers}" in own:
        layers += 1
    bidirectional = "weight_ih_l0_reverse" in own
    cells = [
        _cell(own, f"_l{layer}{direction}", named.kind)
        for layer in range(layers)
        for direction in ("", "_reverse")[: 1 + bidirectional]
    ]
    if own:
        raise ValueError(f"state dict: expected {layers} layers, got also {short(sorted(own))}")
    options = {} if named.kind != "RNN" else {"nonlinearity": _nonlinearity(said, nonlinearity)}
    lstm = assemble(
        cells,
        forget_bias,
        named.kind,
        **options,
        batch_first=said.get("batch_first", False) if batch_first is None else batch_first,
        bidirectional=bidirectional,
        dropout=said.get("dropout", 0.0),
    )
    _check_agrees(named.prefix, lstm, said, forget_bias)
    return lstm


def _nonlinearity(said: Mapping[str, Any], given: str | None) -> str:
    """Of an RNN: what it says of itself, in one of two ways, or what was given."""
    told = said.get("nonlinearity", str(said.get("mode", "")).removeprefix("RNN_").lower() or None)
    if given not in (None, "tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {given!r}")
    if told is None and given is None:
        raise ValueError(
            "nonlinearity: a state dict does not say whether the RNN's is tanh or relu; give "
            "nonlinearity='tanh' or 'relu'"
        )
    if told is not None and (told not in ("tanh", "relu") or given not in (None, told)):
        raise ValueError(f"nonlinearity: expected {given or 'tanh or relu'}, got {short(told)}")
    return told or given or ""


def _check_agrees(
    prefix: str, lstm: Trainable[Any], said: Mapping[str, Any], forget_bias: float
) -> None:
    """Check what a module says of itself against its weights."""
    kind = lstm._options.kind
    mode = f"RNN_{str(lstm.config['nonlinearity']).upper()}" if kind == "RNN" else kind
    config = {"proj_size": 0, **lstm.config, "mode": mode}
    for name, value in said.items():
        free = name == "batch_first" or (name == "bias" and forget_bias)
        if not free and name in config and config[name] != value:
            raise ValueError(
                f"{prefix or kind}: expected {name}={config[name]!r} as the weights tell, got "
                f"{name}={short(value)} from the module that holds them"
            )


def _by_layers(own: Mapping[str, np.ndarray], said: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name the weights of a quantised LSTM, which numbers its layers and directions in a row."""
    count = sum(name.startswith("weight_ih_") for name in own)
    second, hidden = own.get("weight_ih_1"), own["weight_hh_0"].shape[1:]
    both = said.get("bidirectional")
    if not isinstance(both, bool):
        one_way, two_ways = (
            second is not None and second.shape[1:] == shape
            for shape in (hidden, own["weight_ih_0"].shape[1:])
        )
        if one_way and two_ways and count == 2:
            raise ValueError(
                "state dict: a quantised LSTM of two layers, or of one in both directions: these "
                "weights do not say which; save the whole module"
            )
        both = two_ways and not (one_way and count % 2)
    named = {}
    for name, array in own.items():
        weight, _, index = name.rpartition("_")
        layer, direction = divmod(int(index), 1 + both)
        named[f"{weight}_l{layer}{'_reverse' if direction else ''}"] = array
    return named


def _cell(own: dict[str, np.ndarray], ending: str, kind: str) -> Cell:
    """Take the arrays of one direction of one layer out of `own`."""
    for name in ("weight_ih", "weight_hh"):
        if name + ending not in own:
            raise ValueError(f"state dict: expected {name + ending}, got none")
    biases = [own.pop(name + ending, None) for name in ("bias_ih", "bias_hh")]
    given = [bias for bias in biases if bias is not None]
    if given and given[0].shape != given[-1].shape:
        raise ValueError(f"bias_hh{ending}: expected shape {given[0].shape}, got {given[1].shape}")
    if kind == "GRU":
        if len(given) == 1:
            raise ValueError(f"bias_ih{ending}, bias_hh{ending}: expected both or none, got one")
        return gru_cell(own.pop("weight_ih" + ending), own.pop("weight_hh" + ending), *biases)
    return Cell(
        own.pop("weight_ih" + ending),
        own.pop("weight_hh" + ending),
        np.sum(given, axis=0) if given else None,
        own.pop("weight_hr" + ending, None),
    )
