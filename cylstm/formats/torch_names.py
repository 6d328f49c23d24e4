"""The names of a PyTorch state dict: which LSTMs they tell of, and what stands for each weight.

A module may compute a weight from other tensors whenever it runs: pruning, weight normalisation,
spectral normalisation and AWD-LSTM's dropout of weights keep those under names of their own. Here
they become the weight that the module uses in evaluation, or an error that names them.

The names: ``torch/nn/utils`` of PyTorch (prune, weight_norm, spectral_norm, parametrizations);
``fastai/text/models/awdlstm.py`` of fastai; ``weight_drop.py`` of Salesforce's awd-lstm-lm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.io.files import real

__all__ = ["Named", "find", "others"]

_HALVES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_WEIGHT = r"(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l\d+(?:_reverse)?)?"
_PREFIX = r"(?:(?P<prefix>.*)\.)?"
_PARAMETRIZED = re.compile(
    rf"{_PREFIX}parametrizations\.(?P<weight>{_WEIGHT})\.(?P<part>.+)", re.DOTALL
)
_PACKED = re.compile(
    rf"{_PREFIX}_all_weight_values\.(?P<cell>\d{{1,9}})\.param\.(?P<weight>{'|'.join(_HALVES)})",
    re.DOTALL,
)
_PACKED_IN_CELL = re.compile(
    rf"{_PREFIX}_packed_weight_(?P<side>ih|hh)\.(?P<kind>weight|bias)", re.DOTALL
)
_PLAIN = re.compile(
    rf"{_PREFIX}(?P<weight>{_WEIGHT})(?:_(?P<part>raw|orig|mask|g|v|u))?", re.DOTALL
)
_DAMAGED_WEIGHT = re.compile(rf"{_WEIGHT}(?=\W|_|$)")
_GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}  # by how often their weights' rows hold the hidden size
_MOST_LISTED = 20


@dataclass
class Named:
    """The tensors of one LSTM, or of another of its kind: by weight, then by what they are to it.

    A weight that is as it is used stands under the part "".
    """

    prefix: str
    weights: dict[str, dict[str, tuple[str, Any]]] = field(default_factory=dict)
    is_cell: bool = False
    packed: bool = False  # of a quantised one, whose weights are numbered

    def add(self, weight: str, part: str, name: str, tensor: Any) -> None:
        """Add the tensor of this name."""
        parts = self.weights.setdefault(weight, {})
        if part in parts:
            raise ValueError(
                f"{short(name)}: stands for the same weight as {short(parts[part][0])}"
            )
        parts[part] = (name, tensor)

    @property
    def names(self) -> set[str]:
        """The names of all."""
        return {name for parts in self.weights.values() for name, _ in parts.values()}

    @property
    def kind(self) -> str:
        """LSTM, GRU or RNN, by the shapes; else nothing."""
        shapes = {weight: _shape(parts) for weight, parts in self.weights.items()}
        if self.packed:
            rows, inner = shapes.get("weight_ih_0", ()), shapes.get("weight_hh_0", ())[1:]
        else:
            rows = shapes.get("weight_ih_l0", ())
            inner = shapes.get("weight_hr_l0", shapes.get("weight_hh_l0", ()))[1:]
        if len(rows) != 2 or len(inner) != 1 or not inner[0] or rows[0] % inner[0]:
            return ""
        return _GATES.get(rows[0] // inner[0], "")

    def resolve(self, computed: Callable[[str, str], Any]) -> dict[str, np.ndarray]:
        """Return the weights that the module would use in evaluation.

        Parameters
        ----------
        computed : callable
            What gives the weight that a module in memory computes, if there is one: of the prefix
            and the weight's name.
        """
        own = {}
        for weight, parts in self.weights.items():
            plain = weight.removesuffix("_l0") if self.is_cell else weight
            made = computed(self.prefix, plain) if parts.keys() != {""} else None
            own[weight] = real(weight, made) if made is not None else _resolve(weight, parts)
        return own


def find(tensors: Mapping[str, Any]) -> dict[str, Named]:
    """Return all that have the names of PyTorch's recurrent layers, by what stands before those."""
    found: dict[str, Named] = {}
    for name, tensor in tensors.items():
        prefix, weight, part = _parsed(name)
        if not weight:
            continue
        own = found.setdefault(prefix, Named(prefix))
        if "_" not in weight.replace("_", "", 1):  # no number of a layer
            own.is_cell, weight = True, f"{weight}_l0"
        own.packed = own.packed or (weight[-1:].isdigit() and "_l" not in weight)
        own.add(weight, part, name, tensor)
    return _unwrapped(found)


def _parsed(name: str) -> tuple[str, str, str]:
    """Return what stands before a weight's name, the weight, and what the tensor is to it."""
    if (match := _PARAMETRIZED.fullmatch(name)) is not None:
        weight, part = match["weight"], f".{match['part']}"
    elif (match := _PACKED.fullmatch(name)) is not None:
        weight, part = f"{match['weight']}_{int(match['cell'])}", ""
    elif (match := _PACKED_IN_CELL.fullmatch(name)) is not None:
        weight, part = f"{match['kind']}_{match['side']}", f"packed {match['kind']}"
    elif (match := _PLAIN.fullmatch(name)) is not None:
        weight, part = match["weight"], match["part"] or ""
    else:
        return "", "", ""
    return match["prefix"] or "", weight, part


def _unwrapped(found: dict[str, Named]) -> dict[str, Named]:
    """Give an LSTM the raw weights that stand in a module around it, as fastai's do."""
    for outer in list(found.values()):
        prefix = f"{outer.prefix}.module" if outer.prefix else "module"
        inner = found.get(prefix)
        parts = {part for own in outer.weights.values() for part in own}
        if inner is None or parts != {"raw"}:
            continue
        del found[outer.prefix]
        for weight, own in outer.weights.items():
            inner.add(weight, "raw", *own["raw"])
    return {p: own for p, own in found.items() if _has_weights(own)}


def _has_weights(own: Named) -> bool:
    first = "0" if own.packed else "l0"
    return {f"weight_ih_{first}", f"weight_hh_{first}"} <= own.weights.keys()


def others(tensors: Mapping[str, Any], own: Named) -> list[str]:
    """Return the names that belong to this LSTM's module, or wrap it, and are not understood."""
    within = f"{own.prefix}." if own.prefix else ""
    outer = own.prefix.rpartition(".")[0] if own.prefix.count(".") else ""
    around = f"{outer}." if outer else ""
    used = own.names
    unknown = []
    for name in tensors:
        if name in used:
            continue
        if name.startswith(within) or (
            own.prefix
            and name.startswith(around)
            and "." not in name[len(around) :]
            and _DAMAGED_WEIGHT.match(name, len(around))
        ):
            unknown.append(name)
    return unknown


# What stands for a weight -----------------------------------------------------------------------


def _shape(parts: Mapping[str, tuple[str, Any]]) -> tuple[int, ...]:
    """Return the shape of the weight that these stand for, as far as one of them has it."""
    for part in ("packed weight", "", "raw", "orig", "v", ".original", ".original1"):
        if part in parts:
            shape = getattr(parts[part][1], "shape", None)
            return np.shape(parts[part][1]) if shape is None else tuple(shape)
    return ()


def _resolve(weight: str, parts: Mapping[str, tuple[str, Any]]) -> np.ndarray:
    rule = _RULES.get(frozenset(parts))
    if rule is None:
        listed = ", ".join(repr(name) for name, _ in list(parts.values())[:_MOST_LISTED])
        raise ValueError(
            f"{weight}: expected the weight, or what pruning, weight_norm, spectral_norm or "
            f"AWD-LSTM keep of it, got {listed[:500]}; remove the parametrization before saving "
            "(torch.nn.utils.parametrize.remove_parametrizations), or give the module itself"
        )
    order, combine = rule
    arrays = [real(parts[part][0], parts[part][1]) for part in order]
    try:
        return combine(*arrays)
    except ValueError as error:
        raise ValueError(f"{weight}: {error}") from None


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _masked(original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if original.shape != mask.shape:
        raise ValueError(f"expected a mask of shape {original.shape}, got {mask.shape}")
    return original * mask.astype(original.dtype)


def _weight_normed(magnitude: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the weight whose norms are `magnitude`: along the axes where that has the size 1."""
    sizes = magnitude.shape if magnitude.ndim else (1,) * direction.ndim
    if len(sizes) != direction.ndim or any(
        size not in (1, whole) for size, whole in zip(sizes, direction.shape, strict=True)
    ):
        raise ValueError(f"expected norms for shape {direction.shape}, got {magnitude.shape}")
    wide = direction.astype(np.float64)
    axes = tuple(axis for axis, size in enumerate(sizes) if size == 1)
    norm = np.sqrt(np.sum(wide * wide, axis=axes, keepdims=True))
    with np.errstate(all="ignore"):  # a direction of zeros is NaN in PyTorch too
        return (wide / norm * magnitude.reshape(sizes)).astype(direction.dtype)


def _spectral_normed(original: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the weight divided by its greatest singular value, of which u and v are the vectors.

    They tell along which axis the weight was made a matrix, unless it is square.
    """
    matrices = [original.astype(np.float64)] if original.ndim == 2 else []
    fits = [m for m in (*matrices, *(m.T for m in matrices)) if m.shape == (*u.shape, *v.shape)]
    if len(fits) != 1:
        raise ValueError(
            f"expected spectral_norm's vectors for a matrix of two sizes, of shape "
            f"{original.shape}, got {u.shape} and {v.shape}"
        )
    with np.errstate(all="ignore"):
        return (original / (u.astype(np.float64) @ fits[0] @ v)).astype(original.dtype)


_RULES: dict[frozenset[str], tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
    frozenset(order) | beside: (order, combine)
    for order, beside, combine in (
        (("",), frozenset(), _same),
        (("packed weight",), frozenset(), _same),
        (("packed bias",), frozenset(), _same),
        (("packed bias",), frozenset({""}), _same),  # beside one that is not used
        (("raw",), frozenset(), _same),
        (("raw",), frozenset({""}), _same),  # beside a copy, of which training dropped some
        (("orig", "mask"), frozenset(), _masked),
        (("g", "v"), frozenset(), _weight_normed),
        ((".original0", ".original1"), frozenset(), _weight_normed),
        (("orig", "u", "v"), frozenset(), _spectral_normed),
        ((".original", ".0._u", ".0._v"), frozenset(), _spectral_normed),
    )
}
