"""The GRU: what it is made from, and its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cylstm.family import Trainable
from cylstm.options import STANDARD, Activation, GRUOptions, checked_gru

if TYPE_CHECKING:
    import numpy.typing as npt

    from cylstm.quantized import QuantizedGRU


class GRU(Trainable[np.ndarray]):
    r"""A network of gated recurrent units, of one or more layers, in one or both directions.

    Each layer computes, for each step of its input,

    .. math::

        r_t &= a(W_{ir} x_t + W_{hr} h_{t-1} + b_r) \\
        z_t &= a(W_{iz} x_t + W_{hz} h_{t-1} + b_z) \\
        n_t &= b(W_{in} x_t + b_n + r_t (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) n_t + z_t h_{t-1}

    with a the sigmoid and b the hyperbolic tangent by default: the form of ``torch.nn.GRU``, of
    Keras's ``reset_after=True``, and of ONNX's ``linear_before_reset=1`` [2]_. It is called,
    streamed and trained as `cylstm.LSTM` is, but its state is h alone.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `cylstm.LSTM`.
    reverse : bool, default False
        Whether sequences are read from their end; y stays in the order of the input.
    clip : float, optional
        Bound on the arguments of a and b.
    activations : sequence, default ("sigmoid", "tanh")
        (a, b), each as of `cylstm.LSTM`; or one such pair for each direction.
    dtype : {"float32", "float64"}
    seed : int, optional
        Of the initial parameters and of dropout.

    Attributes
    ----------
    weight_ih_l{k} : array, (3H, I); (3H, D H) from the second layer on
        Of layer k, the gates in the order r, z, n. D is the number of directions. The second
        direction's names end in ``_reverse``.
    weight_hh_l{k} : array, (3H, H)
    bias_l{k} : array, (3H,)
        b_r, b_z and b_n.
    bias_hn_l{k} : array, (H,)

    Parameters are read-only arrays, as those of `cylstm.LSTM`.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP 2014.
    .. [2] PyTorch, `torch.nn.GRU`; of the paper's form, ``reset_after=False``, there is none here.

    Examples
    --------
    >>> import numpy as np, cylstm
    >>> gru = cylstm.GRU(input_size=3, hidden_size=8, num_layers=2, seed=0)
    >>> x = np.ones((5, 2, 3), dtype=np.float32)  # 5 steps of 2 sequences
    >>> y, h_n = gru(x)
    >>> y.shape, h_n.shape
    ((5, 2, 8), (2, 2, 8))
    """

    activations: Sequence[Activation | Sequence[Activation]]
    _options_type = GRUOptions
    _checked = staticmethod(checked_gru)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        clip: float | None = None,
        activations: Sequence[Activation | Sequence[Activation]] = STANDARD[:2],
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "seed")}
        self._make(seed, given)

    if TYPE_CHECKING:

        def quantize(self, weights: str = "int8") -> QuantizedGRU:
            """Return what `Trainable.quantize` does."""

    def _with_pair(self, ending: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        made = super()._with_pair(ending, state)
        made["bias_hh" + ending][2 * self._options.hidden_size :] = made.pop("bias_hn" + ending)
        return made

    def _of_pair(self, ending: str, ih: np.ndarray, hh: np.ndarray) -> dict[str, np.ndarray]:
        common = 2 * self._options.hidden_size
        bias = ih.copy()
        bias[:common] += hh[:common]
        return {"bias" + ending: bias, "bias_hn" + ending: hh[common:]}
