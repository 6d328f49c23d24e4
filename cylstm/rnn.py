"""The plain recurrent network: what it is made from, and its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cylstm.family import Trainable
from cylstm.options import Activation, RNNOptions, checked_rnn

if TYPE_CHECKING:
    import numpy.typing as npt

    from cylstm.quantized import QuantizedRNN


class RNN(Trainable[np.ndarray]):
    r"""A plain recurrent network [1]_, of one or more layers, in one or both directions.

    Each layer computes, for each step of its input,

    .. math:: h_t = b(W_{ih} x_t + W_{hh} h_{t-1} + bias)

    with b the hyperbolic tangent by default, as ``torch.nn.RNN`` does. It is called, streamed and
    trained as `cylstm.LSTM` is, but its state is h alone.

    Parameters
    ----------
    input_size, hidden_size, num_layers
        As of `cylstm.LSTM`.
    nonlinearity : str or sequence, default "tanh"
        b: "tanh", "relu", "sigmoid", "hard_sigmoid" (slope 0.2 and offset 0.5) or
        ("hard_sigmoid", slope, offset); or a pair of such, one for each direction.
    bias, batch_first, dropout, bidirectional
        As of `cylstm.LSTM`.
    reverse : bool, default False
        Whether sequences are read from their end; y stays in the order of the input.
    clip : float, optional
        Bound on the argument of b.
    dtype : {"float32", "float64"}
    seed : int, optional
        Of the initial parameters and of dropout.

    Attributes
    ----------
    weight_ih_l{k} : array, (H, I); (H, D H) from the second layer on
        Of layer k. D is the number of directions; the second direction's names end in ``_reverse``.
    weight_hh_l{k} : array, (H, H)
    bias_l{k} : array, (H,)

    Parameters are read-only arrays, as those of `cylstm.LSTM`.

    References
    ----------
    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14(2), 1990.

    Examples
    --------
    >>> import numpy as np, cylstm
    >>> rnn = cylstm.RNN(input_size=3, hidden_size=8, nonlinearity="relu", seed=0)
    >>> y, h_n = rnn(np.ones((5, 2, 3), dtype=np.float32))  # 5 steps of 2 sequences
    >>> y.shape, h_n.shape
    ((5, 2, 8), (1, 2, 8))
    """

    nonlinearity: Activation | Sequence[Activation]
    _options_type = RNNOptions
    _checked = staticmethod(checked_rnn)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Activation | Sequence[Activation] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        clip: float | None = None,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "seed")}
        self._make(seed, given)

    if TYPE_CHECKING:

        def quantize(self, weights: str = "int8") -> QuantizedRNN:
            """Return what `Trainable.quantize` does."""
