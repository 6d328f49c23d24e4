"""LSTMs, GRUs and RNNs of int8 or bfloat16 weights, for inference."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from cylstm import quantization
from cylstm.core.network import Network
from cylstm.family import Trainable, layers_of
from cylstm.gru import GRU
from cylstm.lstm import LSTM
from cylstm.options import Shared
from cylstm.quantization import SCALE, Fixed
from cylstm.recurrent import Recurrent, State
from cylstm.rnn import RNN


class Quantized(Recurrent[State]):
    """What quantized networks have in common."""

    _of: ClassVar[type[Trainable[Any]]]

    weights: str
    bias: bool
    bidirectional: bool
    reverse: bool
    clip: float | None

    def __init__(self, lstm: Trainable[Any], weights: str = "int8") -> None:
        if not isinstance(lstm, self._of):
            one = f"a{'' if self._of is GRU else 'n'} {self._of.__name__}"
            raise TypeError(f"lstm: expected {one}, got {type(lstm).__name__}")
        weights = quantization.checked_format(weights)
        if lstm.dtype != np.float32:
            raise ValueError(f"lstm: expected float32 to quantize, got {lstm.dtype}")
        self._build(lstm._options, weights, quantization.rounded(weights, lstm.state_dict()))

    def _build(self, options: Shared, weights: str, stored: Mapping[str, np.ndarray]) -> None:
        self._options, self._rng = options, None
        self._store = store = Fixed(stored)  # type: ignore[assignment]
        more = {"dtype": np.dtype(options.dtype), "weights": weights}
        self.__dict__.update(asdict(options), **more, **store.views)
        self._layers = layers_of(options, store.views, beside=(SCALE,))
        self._network = Network(self._layers, options.batch_first, store)

    def forward(self, *given: Any, **named: Any) -> NoReturn:
        """Refuse: weights of few bits do not train."""
        raise TypeError(
            f"forward: {self.weights} weights do not train; train the {self._options.kind}, then "
            "quantize it"
        )

    def backward(self, *given: Any, **named: Any) -> NoReturn:
        """Refuse, as `forward` does."""
        raise TypeError(
            f"backward: {self.weights} weights do not train; train the {self._options.kind}, then "
            "quantize it"
        )

    def trace(self, *given: Any, **named: Any) -> NoReturn:
        """Refuse: the gates are not kept where weights of few bits are multiplied."""
        raise TypeError(
            f"trace: {self.weights} weights keep no gates; trace the LSTM, or dequantize()"
        )

    @property
    def num_parameters(self) -> int:
        """How many numbers the network's parameters hold, scales not counted."""
        return sum(a.size for name, a in self._store.views.items() if not name.endswith(SCALE))

    @property
    def config(self) -> dict[str, Any]:
        """The format of the weights, and the arguments that make the network."""
        return {"weights": self.weights, **asdict(self._options)}

    def named_parameters(self) -> Iterator[tuple[str, np.ndarray]]:
        """Iterate over the names and (read-only) parameters, in PyTorch's order."""
        return iter(self._store.views.items())

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters, by name."""
        return {name: array.copy() for name, array in self._store.views.items()}

    def dequantize(self) -> Trainable[State]:
        """Return a network of float32 whose weights are just those that these stand for.

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 8, seed=0)
        >>> again = lstm.quantize("int8").dequantize()
        >>> bool(abs(again.weight_ih_l0 - lstm.weight_ih_l0).max() < 0.01)
        True
        """
        return self._of._from_saved(asdict(self._options), quantization.widened(self._store.views))

    def save(self, path: str | os.PathLike[str], *, check: bool | np.ndarray = False) -> None:
        """Write the parameters and the configuration as a safetensors file, a quarter as large.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced, whole or not at all.
        check : bool or array, default False
            Whether the file keeps a small input and the output, so that `cylstm.load` tests itself
            by them; or the input to keep.

        See Also
        --------
        cylstm.load
        """
        from cylstm.selfcheck import save_model

        save_model(path, type(self).__name__, self, check)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"{name}: a quantized {self._options.kind} does not change")
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "parameters": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = dict(state["config"])
        weights = config.pop("weights")
        self._build(self._of._checked(**config), weights, state["parameters"])

    def __repr__(self) -> str:
        changed = self._options.changed()
        sizes = f"{changed.pop('input_size')}, {changed.pop('hidden_size')}"
        given = {"weights": self.weights, **changed}
        shown = [sizes, *(f"{n}={v!r}" for n, v in given.items())]
        return f"{type(self).__name__}({', '.join(shown)})"


class QuantizedLSTM(Quantized[tuple[np.ndarray, np.ndarray]]):
    """An LSTM of int8 or bfloat16 weights, made by `LSTM.quantize`; it does not train.

    It is called, and streamed, as the LSTM that it was made from: x, y and the state are float32,
    and so are the gates and the cell state.

    ``"int8"``
        Each row of a weight matrix is integers from -127 to 127 times one scale. x_t and h_{t-1}
        are rounded in the same way at each step, each sequence's with scales of their own, found
        from nothing but these. The products are summed as integers, exactly.
    ``"bfloat16"``
        Weights, x_t and h_{t-1} are rounded to bfloat16, products summed in float32.

    Nothing is calibrated. As with the LSTM, a sequence's y and state are the same bits alone or in
    any batch, with any padding, in one call or many, and with any number of threads. An infinity or
    NaN in a sequence's x makes NaN of its outputs from that step on.

    Attributes
    ----------
    weights : {"int8", "bfloat16"}
    weight_ih_l{k}, weight_hh_l{k}, weight_hr_l{k} : array
        As of the LSTM, read-only: of int8, each beside the scales of its rows (of float32, named
        with ``_scale`` at the end), or the bits of bfloat16, which NumPy lacks, as uint16. The
        other parameters are the LSTM's.

    Examples
    --------
    >>> lstm = cylstm.LSTM(3, 8, seed=0)
    >>> fast = lstm.quantize("int8")
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> bool(abs(fast(x)[0] - lstm(x)[0]).max() < 0.01)
    True
    >>> fast
    QuantizedLSTM(3, 8, weights='int8')
    """

    _of = LSTM
    if TYPE_CHECKING:

        def dequantize(self) -> LSTM:
            """Return what `Quantized.dequantize` does."""


class QuantizedGRU(Quantized[np.ndarray]):
    """A GRU of int8 or bfloat16 weights, made by `GRU.quantize`: as `QuantizedLSTM` of an LSTM."""

    _of = GRU
    if TYPE_CHECKING:

        def dequantize(self) -> GRU:
            """Return what `Quantized.dequantize` does."""


class QuantizedRNN(Quantized[np.ndarray]):
    """An RNN of int8 or bfloat16 weights, made by `RNN.quantize`: as `QuantizedLSTM` of an LSTM."""

    _of = RNN
    if TYPE_CHECKING:

        def dequantize(self) -> RNN:
            """Return what `Quantized.dequantize` does."""


QUANTIZED: dict[str, type[Quantized[Any]]] = {
    cls.__name__: cls for cls in (QuantizedLSTM, QuantizedGRU, QuantizedRNN)
}


def quantize(network: Trainable[State], weights: str) -> Quantized[State]:
    """Do what `LSTM.quantize` does."""
    return QUANTIZED[f"Quantized{network._options.kind}"](network, weights)


def quantized_from_file(
    path: str | os.PathLike[str],
    kind: str,
    config: dict[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> Quantized[Any]:
    """Make the quantized network that a file's configuration and tensors describe."""
    config, cls = dict(config), QUANTIZED[kind]
    try:
        weights = quantization.checked_format(config.pop("weights", None))
        options = cls._of._options_from_file(config, len(tensors))
        if options.dtype != "float32":
            raise ValueError(f"dtype: expected float32, got {options.dtype}")
        stored = quantization.checked_tensors(weights, options.parameter_shapes(), tensors)
    except (TypeError, ValueError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from None
    made = cls.__new__(cls)
    made._build(options, weights, stored)
    return made
