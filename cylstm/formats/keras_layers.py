"""What scores each layer of Keras.

Of each layer, every option is looked at, or known to have no effect, or refused; and every array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.formats.chain import Apply, Embedding, activation
from cylstm.formats.keras_config import Entry, check_keys, described, flag, number
from cylstm.formats.keras_joins import Attention, Concatenate, Merge
from cylstm.formats.keras_lstm import activation_name, halves_of, hard_sigmoid, lstms_of
from cylstm.formats.keras_ops import OPERATIONS, operation_of
from cylstm.formats.keras_scoring import (
    GlobalAverage,
    Masking,
    NoMask,
    Recurrent,
    Unmasked,
    affine,
    average_pooled,
    convolved,
    max_pooled,
    normalised,
)
from cylstm.layers import Linear

__all__ = ["layers_of"]

Layers = Iterator[Any]


def layers_of(entry: Entry) -> Layers:
    """Yield what scores a layer, one after the other.

    Raises
    ------
    ValueError
        If it is none of those that are read, or has options or arrays that are not; it names the
        layer.
    """
    if entry.kind in _PASSED_OVER:
        yield from _naming(entry, _nothing)
    elif entry.kind in _SCORED:
        yield from _naming(entry, _SCORED[entry.kind])
    else:
        known = ", ".join([*_SCORED, *_PASSED_OVER])
        raise ValueError(
            f"layer {entry.name!r}: expected one of {known}, "
            f"got {short(entry.kind)}; from_keras takes the LSTMs alone"
        )


def _naming(entry: Entry, made: Callable[[Entry], Layers]) -> Layers:
    try:
        yield from made(entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"layer {entry.name!r}: {error}") from error


# Options and arrays ----------------------------------------------------------------------------


def _without_arrays(entry: Entry, *known: str) -> None:
    """Check a layer that has no arrays."""
    check_keys(entry.config, known)
    (arrays,) = entry.weights([""])
    if arrays:
        raise ValueError(f"expected no arrays, got {short([array.shape for array in arrays])}")


def _nothing(entry: Entry) -> Layers:
    """What has an effect in training alone."""
    if entry.kind != "InputLayer":
        _without_arrays(entry, "rate", "stddev", "l1", "l2")
    yield from ()


def _whole(config: Mapping[str, Any], name: str, default: Any, lowest: int = 1) -> int:
    """Return a whole number, which may be a list of one."""
    value = config.get(name, default)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return checks.whole(name, value, lowest)


def _pair(config: Mapping[str, Any], name: str, default: int) -> tuple[int, int]:
    """Return two whole numbers, of which one may stand for both."""
    value = config.get(name, default)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    first, second = value if isinstance(value, list) and len(value) == 2 else (value, value)
    return checks.whole(name, first), checks.whole(name, second)


def _one_of(config: Mapping[str, Any], name: str, known: tuple[str, ...], default: str) -> str:
    value = config.get(name, default)
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {short(value)}")
    return value


def _check_last(config: Mapping[str, Any]) -> None:
    """Refuse features that do not stand last."""
    if config.get("data_format") is not None:
        _one_of(config, "data_format", ("channels_last",), "channels_last")


def _axis(config: Mapping[str, Any]) -> int:
    return _whole(config, "axis", -1, lowest=-1)


def _arrays(entry: Entry, names: list[str], part: str = "") -> dict[str, np.ndarray]:
    """Return a layer's arrays by name."""
    (arrays,) = entry.weights([part])
    if len(arrays) != len(names):
        shapes = [array.shape for array in arrays]
        raise ValueError(f"expected the arrays {', '.join(names)}, got {short(shapes)}")
    return dict(zip(names, arrays, strict=True))


def _matrix(name: str, array: np.ndarray, rank: int = 2) -> np.ndarray:
    if array.ndim != rank:
        raise ValueError(f"{name}: expected {rank} axes, got shape {array.shape}")
    return array


# Layers ----------------------------------------------------------------------------------------


def _recurrent(entry: Entry) -> Layers:
    halves = halves_of(entry)
    options = halves[0].options
    if flag(options, "return_state"):
        raise ValueError("return_state: expected False, got True; from_keras takes the LSTM alone")
    if flag(options, "stateful"):
        raise ValueError(
            "stateful: expected False, since a model that is read keeps no state between calls; "
            "from_keras(...).stream() does"
        )
    two = len(halves) == 2
    merge_mode = entry.config.get("merge_mode", "concat") if two else "concat"
    if merge_mode not in ("concat", "sum", "mul", "ave"):
        raise ValueError(
            f"merge_mode: expected one output, got {short(merge_mode)}; "
            "from_keras takes the LSTMs alone"
        )
    if flag(options, "time_major"):
        raise ValueError("time_major: expected False, got True; from_keras takes the LSTM alone")
    sequences = flag(options, "return_sequences")
    # Only tf.keras, and Keras since 2.4, which is tf.keras, sets it within a Bidirectional.
    forced = two and (entry.major >= 3 or re.match(r"2\.([4-9]|\d\d)|.*-tf", entry.version))
    zero_output = sequences if forced else flag(options, "zero_output_for_mask")
    *lower, last = lstms_of(entry)
    for lstm in lower:
        yield Recurrent(lstm, True, False, "concat", zero_output=False)
    yield Recurrent(last, sequences, halves[0].backwards, merge_mode, zero_output)


def _dense(entry: Entry, part: str = "") -> Layers:
    check_keys(entry.config, ("units", "output_dim", "input_dim", "use_bias", "bias", "activation"))
    bias = flag(entry.config, "use_bias", flag(entry.config, "bias", True))
    arrays = _arrays(entry, ["weight", "bias"][: 1 + bias], part)
    weight = arrays["weight"] = _matrix("kernel", arrays["weight"]).T
    linear = Linear(weight.shape[1], weight.shape[0], bias, dtype=weight.dtype)
    linear.load_state_dict(arrays)
    yield linear
    yield from _activations(entry)


def _activations(entry: Entry) -> Layers:
    """Yield the activation that a layer ends with."""
    name = activation_name(entry.config.get("activation"))
    if name == "hard_sigmoid":
        _, slope, offset = hard_sigmoid(entry.major)
        yield activation(name, slope=slope, offset=offset)
    elif name == "leaky_relu":
        yield activation(name, slope=0.2)
    elif name != "linear":
        yield activation(name)


def _activation(entry: Entry) -> Layers:
    _without_arrays(entry, "activation")
    yield from _activations(entry)


def _embedding(entry: Entry) -> Layers:
    check_keys(entry.config, ("input_dim", "output_dim", "mask_zero"))
    weight = _matrix("embeddings", _arrays(entry, ["embeddings"])["embeddings"])
    yield Embedding(weight, flag(entry.config, "mask_zero"))


def _batch_normalization(entry: Entry) -> Layers:
    config = entry.config
    check_keys(config, ("scale", "center", "axis", "epsilon", "mode", "beta", "gamma"))
    known = _arrays(
        entry,
        ["gamma"] * flag(config, "scale", True)
        + ["beta"] * flag(config, "center", True)
        + ["mean", "variance"],
    )
    scale = known.get("gamma", 1) / np.sqrt(known["variance"] + number(config, "epsilon", 1e-3))
    shift = known.get("beta", 0) - known["mean"] * scale
    yield Apply(affine, scale=scale, shift=shift, axis=_axis(config))


def _layer_normalization(entry: Entry) -> Layers:
    config = entry.config
    check_keys(config, ("scale", "center", "axis", "epsilon"))
    names = ["gamma"] * flag(config, "scale", True) + ["beta"] * flag(config, "center", True)
    known = _arrays(entry, names)
    yield Apply(
        normalised,
        scale=known.get("gamma", np.float32(1)),
        shift=known.get("beta", np.float32(0)),
        epsilon=number(config, "epsilon", 1e-3),
        axis=_axis(config),
    )


def _time_distributed(entry: Entry) -> Layers:
    check_keys(entry.config, ("layer",))
    kind, config = described(entry.config.get("layer"), "layer")
    if kind == "Dense":
        yield from _dense(replace(entry, kind=kind, config=config), "layer")
    elif kind in ("Activation", "Dropout"):
        inner = replace(
            entry, kind=kind, config=config, weights=lambda parts: entry.weights(["layer"])
        )
        yield from layers_of(inner)
    else:
        raise ValueError(f"layer: expected Dense, Activation or Dropout, got {short(kind)}")


def _relu(entry: Entry) -> Layers:
    _without_arrays(entry, "negative_slope")  # max_value and threshold are refused
    slope = entry.config.get("negative_slope")
    yield activation("leaky_relu", slope=0.0 if slope is None else checks.finite("slope", slope))


def _leaky_relu(entry: Entry) -> Layers:
    _without_arrays(entry, "negative_slope", "alpha")
    name = "negative_slope" if "negative_slope" in entry.config else "alpha"
    yield activation("leaky_relu", slope=number(entry.config, name, 0.3))


def _elu(entry: Entry) -> Layers:
    _without_arrays(entry, "alpha")
    yield activation("elu", alpha=number(entry.config, "alpha", 1.0))


def _softmax(entry: Entry) -> Layers:
    _without_arrays(entry, "axis")
    yield NoMask("Softmax", activation("softmax", axis=_axis(entry.config)))


def _masking(entry: Entry) -> Layers:
    _without_arrays(entry, "mask_value")
    yield Masking(number(entry.config, "mask_value", 0.0))


# The places of numbers -------------------------------------------------------------------------


def _flatten(entry: Entry) -> Layers:
    _without_arrays(entry, "data_format")
    _check_last(entry.config)
    yield Unmasked(rows_reshaped, shape=(-1,))


def _reshape(entry: Entry) -> Layers:
    _without_arrays(entry, "target_shape")
    shape = entry.config.get("target_shape")
    if not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise ValueError(f"target_shape: expected whole numbers, got {short(shape)}")
    yield Unmasked(rows_reshaped, shape=tuple(shape))


def rows_reshaped(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give each sequence's numbers this shape."""
    return x.reshape(len(x), *shape)


def _permute(entry: Entry) -> Layers:
    _without_arrays(entry, "dims")
    dims = entry.config.get("dims")
    if not isinstance(dims, list) or sorted(dims) != list(range(1, len(dims) + 1)):
        raise ValueError(f"dims: expected the axes from 1 on, got {short(dims)}")
    yield Unmasked(np.transpose, axes=(0, *dims))


def _repeat_vector(entry: Entry) -> Layers:
    _without_arrays(entry, "n")
    yield NoMask("RepeatVector", Apply(repeated, count=_whole(entry.config, "n", None)))


def repeated(x: np.ndarray, count: int) -> np.ndarray:
    """Give each of (N, F) so many steps."""
    return np.repeat(x[:, None], count, axis=1)


def _zero_padding(entry: Entry) -> Layers:
    _without_arrays(entry, "padding", "data_format")
    _check_last(entry.config)
    before, after = _pair(entry.config, "padding", 1)
    yield NoMask("ZeroPadding1D", Apply(padded, before=before, after=after))


def padded(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """Add steps of zeros."""
    return np.pad(x, ((0, 0), (before, after), (0, 0)))


def _cropping(entry: Entry) -> Layers:
    _without_arrays(entry, "cropping")
    before, after = _pair(entry.config, "cropping", 1)
    yield NoMask("Cropping1D", Apply(cropped, before=before, after=after))


def cropped(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """Leave out steps."""
    if before + after >= x.shape[1]:
        raise ValueError(f"expected more than {before + after} steps, got {x.shape[1]}")
    return x[:, before : x.shape[1] - after]


def _up_sampling(entry: Entry) -> Layers:
    _without_arrays(entry, "size", "length")
    size = _whole(entry.config, "size", entry.config.get("length", 2))
    yield NoMask("UpSampling1D", Apply(np.repeat, repeats=size, axis=1))


# Convolution and pooling -----------------------------------------------------------------------


def _convolution(entry: Entry) -> Layers:
    config = entry.config
    check_keys(
        config,
        ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups",
         "activation", "use_bias"),
    )  # fmt: skip
    _check_last(config)
    bias = flag(config, "use_bias", True)
    arrays = _arrays(entry, ["kernel", "bias"][: 1 + bias])
    kernel = _matrix("kernel", arrays["kernel"], 3)
    size, groups = _whole(config, "kernel_size", None), _whole(config, "groups", 1)
    if len(kernel) != size or kernel.shape[2] % groups:
        raise ValueError(
            f"kernel: expected {size} places and {groups} groups, got shape {kernel.shape}"
        )
    convolution = Apply(
        convolved,
        kernel=kernel,
        bias=arrays.get("bias"),
        stride=_whole(config, "strides", 1),
        dilation=_whole(config, "dilation_rate", 1),
        padding=_one_of(config, "padding", ("valid", "same", "causal"), "valid"),
        groups=groups,
    )
    yield NoMask("Conv1D", convolution)
    yield from _activations(entry)


def _pooling(entry: Entry) -> Layers:
    config = entry.config
    _without_arrays(
        entry, "pool_size", "pool_length", "strides", "stride", "padding", "border_mode",
        "data_format",
    )  # fmt: skip
    _check_last(config)
    if "pool_length" in config:  # of Keras 1
        config = {"pool_size": config["pool_length"], "strides": config.get("stride"),
                  "padding": config.get("border_mode", "valid")}  # fmt: skip
    size = _whole(config, "pool_size", 2)
    stride = size if config.get("strides") is None else _whole(config, "strides", size)
    padding = _one_of(config, "padding", ("valid", "same"), "valid")
    function = max_pooled if entry.kind.startswith("Max") else average_pooled
    yield NoMask(entry.kind, Apply(function, size=size, stride=stride, padding=padding))


def _global_max(entry: Entry) -> Layers:
    _without_arrays(entry, "data_format", "keepdims")
    _check_last(entry.config)
    keepdims = flag(entry.config, "keepdims")
    yield NoMask(entry.kind, Apply(np.max, axis=1, keepdims=keepdims))


def _global_average(entry: Entry) -> Layers:
    _without_arrays(entry, "data_format", "keepdims")
    _check_last(entry.config)
    yield GlobalAverage(flag(entry.config, "keepdims"))


# Several inputs --------------------------------------------------------------------------------


def _merge(function: Callable[..., np.ndarray], entry: Entry, mean: bool = False) -> Layers:
    _without_arrays(entry)
    yield Merge(function, mean)


def _concatenate(entry: Entry) -> Layers:
    _without_arrays(entry, "axis")
    yield Concatenate(_whole(entry.config, "axis", -1, lowest=-9))


def _attention(entry: Entry) -> Layers:
    config = entry.config
    check_keys(config, ("use_scale", "score_mode", "causal"))
    mode = _one_of(config, "score_mode", ("dot", "concat"), "dot")
    scaled, causal = flag(config, "use_scale"), flag(config, "causal")
    known = _arrays(entry, ["scale"] * scaled + ["weight"] * (mode == "concat"))
    yield Attention(mode, known.get("scale"), known.get("weight"), causal)


def _additive_attention(entry: Entry) -> Layers:
    check_keys(entry.config, ("use_scale", "causal"))
    known = _arrays(entry, ["scale"] * flag(entry.config, "use_scale", True))
    yield Attention("additive", known.get("scale"), causal=flag(entry.config, "causal"))


def _operation(entry: Entry) -> Layers:
    yield operation_of(entry)


_SCORED: dict[str, Callable[[Entry], Layers]] = {
    "Activation": _activation,
    "Add": partial(_merge, np.add),
    "AdditiveAttention": _additive_attention,
    "Attention": _attention,
    "Average": partial(_merge, np.add, mean=True),
    "AveragePooling1D": _pooling,
    "BatchNormalization": _batch_normalization,
    "Bidirectional": _recurrent,
    "Concatenate": _concatenate,
    "Conv1D": _convolution,
    "Cropping1D": _cropping,
    "CuDNNGRU": _recurrent,
    "CuDNNLSTM": _recurrent,
    "Dense": _dense,
    "ELU": _elu,
    "Embedding": _embedding,
    "Flatten": _flatten,
    "GlobalAveragePooling1D": _global_average,
    "GlobalMaxPooling1D": _global_max,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "SimpleRNN": _recurrent,
    "LayerNormalization": _layer_normalization,
    "LeakyReLU": _leaky_relu,
    "Masking": _masking,
    "MaxPooling1D": _pooling,
    "Maximum": partial(_merge, np.maximum),
    "Minimum": partial(_merge, np.minimum),
    "Multiply": partial(_merge, np.multiply),
    "Permute": _permute,
    "RNN": _recurrent,
    "ReLU": _relu,
    "RepeatVector": _repeat_vector,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Subtract": partial(_merge, np.subtract),
    "TimeDistributed": _time_distributed,
    "UpSampling1D": _up_sampling,
    "ZeroPadding1D": _zero_padding,
    **dict.fromkeys(OPERATIONS, _operation),
}
_PASSED_OVER = (
    *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
    *("Identity", "InputLayer", "SpatialDropout1D"),
)
