"""The configurations of Keras's layers and models: JSON that anyone may have written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.io.files import Budget, open_plain, parse_object, read_beside

__all__ = [
    "MODELS",
    "Entry",
    "as_object",
    "check_keys",
    "checked_version",
    "configuration",
    "described",
    "flag",
    "has_group",
    "inner_layers",
    "json_object",
    "named",
    "number",
    "text",
]

MODELS = ("Sequential", "Functional", "Model")
_DEEPEST = 8  # of models within models
_LONGEST = 256  # name of a layer
_LIBRARIES = ("keras", "tf_keras", "tensorflow", "keras_core")

Arrays = list[np.ndarray]


@dataclass
class Entry:
    """A layer, or a model: its configuration, and how to have its arrays."""

    name: str
    kind: str
    config: dict[str, Any]
    version: str  # of the Keras that wrote it
    inbound: Any  # what a functional model feeds it with
    weights: Callable[[Sequence[str]], list[Arrays]]  # of its parts, given as the paths of Keras 3
    layers: list[Entry]  # of a model

    @property
    def major(self) -> int:
        """1, 2 or 3."""
        return int(self.version.partition(".")[0])


def configuration(path: Any, config: Any, budget: Budget) -> dict[str, Any]:
    """Return the configuration that is given, or lies beside the file."""
    if isinstance(config, Mapping):
        return dict(config)
    if isinstance(config, str) and config.lstrip().startswith("{"):
        return json_object(config)
    if config is not None:
        with open_plain(config) as file:
            return json_object(file.read())
    name = os.path.basename(path)
    stem = name.removesuffix(".h5").removesuffix(".hdf5").removesuffix(".weights")
    for beside in (f"{stem}.json", "config.json"):
        with suppress(FileNotFoundError):
            return json_object(read_beside(path, beside, budget))
    raise ValueError(
        f"expected config=, or {stem}.json or config.json beside the file, since it holds weights "
        "alone; model.to_json() writes one"
    )


def json_object(content: str | bytes) -> dict[str, Any]:
    """Return the object that a JSON text describes."""
    content = content.decode("utf-8") if isinstance(content, bytes) else content
    return parse_object(content, "the configuration")


def described(value: Any, name: str) -> tuple[str, dict[str, Any]]:
    """Return the class and the configuration of a layer or model of Keras's own.

    Raises
    ------
    ValueError
        If it is none, or of a class that someone else wrote, though it may have a name of Keras's.
    """
    layer = as_object(value, name)
    config = layer.get("config")
    if isinstance(config, list):  # a Sequential of Keras 1 and 2.0
        config = {"layers": config}
    kind = text(layer.get("class_name"), "class_name")
    module = layer.get("module")
    if ">" in str(layer.get("registered_name")) or ">" in kind or (
        module is not None and str(module).partition(".")[0] not in _LIBRARIES
    ):  # fmt: skip
        raise ValueError(
            f"class_name: expected a class of Keras's own, got another's {short(kind)}"
        )
    return kind if is_layer(layer) else f"ops.{kind}", as_object(config, "config")


def is_layer(layer: Mapping[str, Any]) -> bool:
    """Tell whether an operation of a functional model is a layer, not a function of ``keras.ops``.

    They may have the same name: Add is both.
    """
    return not re.match(r"keras\.(src\.)?ops\b", str(layer.get("module")))


def has_group(layer: Mapping[str, Any], model: str) -> bool:
    """Tell whether files keep a group for what a model of this class has among its layers."""
    return is_layer(layer) and (model != "Sequential" or layer.get("class_name") != "InputLayer")


def inner_layers(config: Mapping[str, Any], depth: int) -> list[dict[str, Any]]:
    """Return the layers in a model's configuration, each with its name and class."""
    layers = config.get("layers")
    if not isinstance(layers, list) or depth > _DEEPEST:
        raise ValueError(f"layers: expected a list, in few models, got {short(layers)}")
    found = []
    for layer in layers:
        inner = as_object(layer, "layer").get("config")
        text(layer.get("class_name"), "class_name")
        within = inner.get("name", "") if isinstance(inner, dict) else ""
        found.append(layer | {"name": named(layer.get("name", within))})
    seen: set[str] = set()
    for name in filter(None, (layer["name"] for layer in found)):
        if name in seen:
            raise ValueError(f"layers: expected each name once, got {short(name)} twice")
        seen.add(name)
    return found


# Checked values --------------------------------------------------------------------------------


def as_object(value: Any, name: str) -> dict[str, Any]:
    """Return an object of JSON."""
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object of JSON, got {short(value)}")
    return value


def text(value: Any, name: str) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {short(value)}")
    return value


def named(value: Any) -> str:
    """Return a layer's name."""
    name = text(value, "name")
    if len(name) > _LONGEST:  # which all names within would begin with
        raise ValueError(f"name: expected at most {_LONGEST} characters, got {len(name)}")
    return name


def number(config: Mapping[str, Any], name: str, default: float) -> float:
    """Return a finite number."""
    return checks.finite(name, config.get(name, default))


def flag(config: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """Return whether an option is on."""
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {short(value)}")
    return value


def checked_version(version: Any) -> str:
    """Return a version of Keras."""
    if not re.match(r"[123](\.|$)", text(version, "keras_version")):
        raise ValueError(f"keras_version: expected 1, 2 or 3, got {short(version)}")
    return version


_WITHOUT_EFFECT = re.compile(  # on what a layer makes of its input, after training
    r"name|trainable|batch_input_shape|batch_shape|input_(shape|dtype|dim|length)|seed|rng_type"
    r"|\w+_(initializer|regularizer|constraint)|[WUb]_(regularizer|constraint)|(\w+_)?init"
    r"|dropout(_[WU])?|recurrent_dropout|implementation|consume_less|unroll|unit_forget_bias"
    r"|lora_alpha|synchronized|momentum|renorm_momentum|virtual_batch_size|experimental_\w+"
    r"|sparse|ragged|optional|noise_shape|shared_object_id|build_config"
)


def check_keys(config: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse options that were not looked at, but for those that are off.

    Parameters
    ----------
    config : mapping
    known : collection of str
        The options that the layer's reader looks at.
    """
    _check_dtype(config.get("dtype"))
    for name, value in config.items():
        if name == "dtype" or name in known or _WITHOUT_EFFECT.fullmatch(name):
            continue
        if value not in (None, False, [], {}):
            raise ValueError(f"{short(name)}: expected no such option, got {short(value)}")


def _check_dtype(policy: Any) -> None:
    """Refuse what computes with other numbers than real ones, as quantised layers do."""
    name = policy
    if isinstance(policy, dict):
        inner = policy.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        if policy.get("class_name") not in ("DTypePolicy", "Policy", "FloatDTypePolicy"):
            name = policy.get("class_name")
    known = r"(mixed_)?(b?float16|float32|float64)|u?int(8|16|32|64)|bool"
    if policy is not None and not re.fullmatch(known, str(name)):
        raise ValueError(f"dtype: expected one of real numbers, got {short(name)}")
