"""The LSTM: what it is made from, its parameters, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cylstm.family import Trainable
from cylstm.options import STANDARD, Activation, Options, checked_options

if TYPE_CHECKING:
    import numpy.typing as npt

    from cylstm.quantized import QuantizedLSTM


class LSTM(Trainable[tuple[np.ndarray, np.ndarray]]):
    r"""A long short-term memory network, of one or more layers, in one or both directions.

    Each layer computes, for each step of its input,

    .. math::

        i_t &= a(W_{ii} x_t + W_{hi} h_{t-1} + p_i c_{t-1} + b_i) \\
        f_t &= a(W_{if} x_t + W_{hf} h_{t-1} + p_f c_{t-1} + b_f) \\
        g_t &= b(W_{ig} x_t + W_{hg} h_{t-1} + b_g) \\
        c_t &= f_t c_{t-1} + i_t g_t \\
        o_t &= a(W_{io} x_t + W_{ho} h_{t-1} + p_o c_t + b_o) \\
        h_t &= o_t d(c_t)

    with a the sigmoid, b and d the hyperbolic tangent by default, and no peepholes p. Arguments,
    shapes and parameter names are those of ``torch.nn.LSTM`` where it has them, else those of
    ONNX's LSTM.

    Parameters
    ----------
    input_size : int
        I, the number of features of a step.
    hidden_size : int
        H, the number of units.
    num_layers : int, default 1
        L; each layer reads the outputs of the one before.
    bias : bool, default True
    batch_first : bool, default False
        Whether x and y are (N, T, ...), not (T, N, ...).
    dropout : float, default 0
        Share of each layer's outputs, but the last's, that `forward` sets to zero.
    bidirectional : bool, default False
        Whether a second set of weights reads each sequence from its end; y holds both, side by
        side.
    proj_size : int, default 0
        P, if not 0: h is projected to this size, ``h_t = W_hr (o_t d(c_t))`` [2]_.
    reverse : bool, default False
        Whether sequences are read from their end; y stays in the order of the input.
    peephole : bool, default False
        Whether the gates see the cell state [3]_.
    coupled : bool, default False
        Whether f = 1 - i; the forget gate's weights are there, without effect.
    clip : float, optional
        Bound on the arguments of a and b.
    activations : sequence, default ("sigmoid", "tanh", "tanh")
        (a, b, d), each of "sigmoid", "tanh", "relu", "hard_sigmoid" (slope 0.2 and offset 0.5) or
        ("hard_sigmoid", slope, offset); or one such triple for each direction.
    forget_bias : float, default 1
        What the forget gate's bias starts from.
    dtype : {"float32", "float64"}
    seed : int, optional
        Of the initial parameters and of dropout.

    Attributes
    ----------
    weight_ih_l{k} : array, (4H, I); (4H, D R) from the second layer on
        Of layer k, the gates in the order i, f, g, o. D is the number of directions, R is P with a
        projection, else H. The second direction's names end in ``_reverse``.
    weight_hh_l{k} : array, (4H, R)
    bias_l{k} : array, (4H,)
    weight_hr_l{k} : array, (P, H)
        With a projection.
    weight_p_l{k} : array, (3H,)
        With peepholes: of i, f and o.

    Notes
    -----
    Parameters are read-only arrays, so that no change goes unseen: assign to them
    (``lstm.bias_l0 = array`` copies it in), use `load_state_dict`, or write within `edit`.

    An LSTM holds no state between calls; any number of threads may call one. The GIL is released
    while it computes.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    .. [2] H. Sak, A. Senior, F. Beaufays, "Long short-term memory recurrent neural network
       architectures for large scale acoustic modeling", Interspeech 2014.
    .. [3] F. A. Gers, J. Schmidhuber, "Recurrent nets that time and count", IJCNN 2000.

    Examples
    --------
    >>> import numpy as np, cylstm
    >>> lstm = cylstm.LSTM(input_size=3, hidden_size=8, num_layers=2, seed=0)
    >>> x = np.ones((5, 2, 3), dtype=np.float32)  # 5 steps of 2 sequences
    >>> y, (h_n, c_n) = lstm(x)
    >>> y.shape, h_n.shape, c_n.shape
    ((5, 2, 8), (2, 2, 8), (2, 2, 8))
    """

    proj_size: int
    peephole: bool
    coupled: bool
    activations: Sequence[Activation | Sequence[Activation]]
    forget_bias: float
    _options_type = Options
    _checked = staticmethod(checked_options)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        peephole: bool = False,
        coupled: bool = False,
        clip: float | None = None,
        activations: Sequence[Activation | Sequence[Activation]] = STANDARD,
        forget_bias: float = 1.0,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "seed")}
        self._make(seed, given)

    if TYPE_CHECKING:

        def quantize(self, weights: str = "int8") -> QuantizedLSTM:
            """Return what `Trainable.quantize` does."""
