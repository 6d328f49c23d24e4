"""An LSTM, GRU or RNN put together from the arrays of another framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.gru import GRU
from cylstm.lstm import LSTM
from cylstm.rnn import RNN

__all__ = ["GRU_ORDER", "ORDER", "Cell", "assemble", "gates", "gru_cell", "ordered"]

ORDER = "ifgo"  # of the gates' rows, everywhere in cylstm; of a GRU's
GRU_ORDER = "rzn"


@dataclass
class Cell:
    """One direction of one layer, in cylstm's shapes and order of gates: an LSTM's are four."""

    weight_ih: np.ndarray  # (4H, I)
    weight_hh: np.ndarray  # (4H, R)
    bias: np.ndarray | None = None  # (4H,)
    weight_hr: np.ndarray | None = None  # (P, H)
    weight_p: np.ndarray | None = None  # (3H,)
    bias_hn: np.ndarray | None = None  # (H,), of a GRU

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Those that there are, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @property
    def nbytes(self) -> int:
        """The bytes of all."""
        return sum(array.nbytes for array in self.arrays.values())

    def with_forget_bias(self, added: float) -> Cell:
        """Return a cell in which this is added to the forget gates' biases."""
        hidden = len(self.weight_ih) // 4
        bias = np.zeros(4 * hidden, self.weight_ih.dtype) if self.bias is None else self.bias.copy()
        bias[hidden : 2 * hidden] += checks.finite("forget_bias", added)
        return replace(self, bias=bias)


_KINDS: dict[str, type[LSTM | GRU | RNN]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


def assemble(
    cells: Sequence[Cell], forget_bias: float = 0.0, kind: str = "LSTM", **options: Any
) -> Any:
    """Make an LSTM, or another kind, of these cells: layer by layer, direction by direction.

    Parameters
    ----------
    cells : sequence of Cell
    forget_bias : float
        What is added to the forget gates' biases.
    kind : {"LSTM", "GRU", "RNN"}
    **options
        Those of its class that no shape tells. The precision is the widest of the weights'.

    Raises
    ------
    ValueError
        If the shapes do not fit together; it names the parameter.
    """
    made = _KINDS[kind]
    if forget_bias and kind != "LSTM":
        raise ValueError(f"forget_bias: expected 0 for a {kind}, which has no forget gate")
    if forget_bias:
        cells = [cell.with_forget_bias(forget_bias) for cell in cells]
    first, directions = cells[0], 2 if options.get("bidirectional") else 1
    for weight in (first.weight_ih, first.weight_hh):
        if weight.ndim != 2:
            raise ValueError(f"weights: expected matrices, got shape {weight.shape}")
    gates = made._options_type.gates
    hidden, rest = divmod(first.weight_ih.shape[0], gates)
    if rest:
        number = {4: "four", 3: "three"}[gates]
        raise ValueError(
            f"weight_ih: expected the rows of {number} gates, got shape {first.weight_ih.shape}"
        )
    if kind == "LSTM":
        options["proj_size"] = 0 if first.weight_hr is None else len(first.weight_hr)
        options["peephole"] = first.weight_p is not None
    described = made._options_type(
        input_size=first.weight_ih.shape[1],
        hidden_size=hidden,
        num_layers=len(cells) // directions,
        bias=first.bias is not None,
        dtype=np.result_type(first.weight_ih, np.float32).name,
        **options,
    )
    state = {
        name + ending: array
        for ending, cell in zip(described.endings, cells, strict=True)
        for name, array in cell.arrays.items()
    }
    try:
        return made._from_saved(asdict(described), state)
    except KeyError as error:
        raise ValueError(error.args[0]) from None


def gates(array: np.ndarray, order: str, own_order: str = ORDER) -> np.ndarray:
    """Put rows that stand in another order of gates, such as ``"iofg"``, in cylstm's.

    Examples
    --------
    >>> gates(np.array([0, 1, 2, 3]), "iofg")
    array([0, 2, 3, 1])
    """
    if array.shape[0] % len(order):
        raise ValueError(f"expected the rows of {len(order)} gates, got shape {array.shape}")
    parts = dict(zip(order, np.split(array, len(order)), strict=True))
    return np.concatenate([parts[gate] for gate in own_order if gate in parts])


def gru_cell(
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias_ih: np.ndarray | None,
    bias_hh: np.ndarray | None,
) -> Cell:
    """Make a GRU's of its two biases, summed where the equations have one."""
    if bias_ih is None or bias_hh is None:
        return Cell(weight_ih, weight_hh)
    common = len(bias_ih) // 3 * 2
    bias = bias_ih.copy()
    bias[:common] += bias_hh[:common]
    return Cell(weight_ih, weight_hh, bias, bias_hn=bias_hh[common:])


def ordered(array: np.ndarray, order: str, own_order: str = ORDER) -> np.ndarray:
    """Put rows of gates, which stand in cylstm's order, in another; the inverse of `gates`.

    Examples
    --------
    >>> ordered(np.array([0, 2, 3, 1]), "iofg")
    array([0, 1, 2, 3])
    """
    own = [gate for gate in own_order if gate in order]
    parts = dict(zip(own, np.split(array, len(own)), strict=True))
    return np.concatenate([parts[gate] for gate in order])
