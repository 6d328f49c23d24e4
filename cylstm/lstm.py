"""The LSTM: what it is made from, its parameters, and its files."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm import checks
from cylstm.core.access import writing
from cylstm.core.cell import Cell
from cylstm.core.network import Network
from cylstm.io.safetensors import write_model
from cylstm.options import STANDARD, Options, checked_options, initialise
from cylstm.parameters import Lent, Parameters
from cylstm.recurrent import Recurrent

if TYPE_CHECKING:
    from cylstm.quantized import QuantizedLSTM


class LSTM(Recurrent):
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

    Parameters are read-only arrays, so that no change goes unseen: assign to them
    (``lstm.bias_l0 = array`` copies it in), use `load_state_dict`, or write within `edit`.

    Notes
    -----
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
        activations: Any = STANDARD,
        forget_bias: float = 1.0,
        dtype: Any = "float32",
        seed: int | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "seed")}
        self._build(checked_options(**given))
        rng = self._rng = checks.seeded("seed", seed)
        for name, parameter in self._store.memory().items():
            initialise(name, parameter, self._options, rng)

    def _build(self, options: Options) -> None:
        """Everything but the parameters' values."""
        self._options = options
        dtype = np.dtype(options.dtype)
        self._store = Parameters(options.parameter_shapes(), dtype)
        self.__dict__.update(asdict(options), dtype=dtype, **self._store.views)
        parameters = self._store.memory()
        self._layers: list[list[Cell]] = [[] for _ in range(options.num_layers)]
        for ending, layer, direction in options.cells():
            own = {n: parameters[n + ending] for n in options.layer_shapes(layer)}
            self._layers[layer].append(
                Cell(
                    own,
                    kind="LSTM",
                    reverse=options.reads_from_end(direction),
                    coupled=options.coupled,
                    clip=math.inf if options.clip is None else options.clip,
                    activations=options.activations_of(direction),
                )
            )
        self._network = Network(self._layers, options.batch_first, self._store)

    # Parameters

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters hold.

        Examples
        --------
        >>> cylstm.LSTM(1, 1).num_parameters, cylstm.LSTM(1, 2).num_parameters
        (12, 32)
        """
        return sum(parameter.size for parameter in self._store.views.values())

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make such an LSTM, but the seed; they can be written as JSON."""
        return asdict(self._options)

    def named_parameters(self) -> Iterator[tuple[str, np.ndarray]]:
        """Iterate over the names and (read-only) parameters, in PyTorch's order."""
        return iter(self._store.views.items())

    def edit(self) -> AbstractContextManager[Lent]:
        """Lend writable copies of the parameters, by name, that take effect when the block ends.

        A name may be given another array instead. If the block ends by an exception, or an array is
        none of real numbers of the parameter's shape, nothing is changed. Afterwards the copies are
        read-only.

        Examples
        --------
        >>> lstm = cylstm.LSTM(1, 2, seed=0)
        >>> with lstm.edit() as parameters:
        ...     parameters["bias_l0"] += 0.5
        >>> lstm.bias_l0
        array([0.5, 0.5, 1.5, 1.5, 0.5, 0.5, 0.5, 0.5], dtype=float32)
        """
        return self._store.edit()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        elif name in self._store.views:
            self._store.assign({name: self._store.checked(name, value)})
        else:
            raise AttributeError(f"{name}: an LSTM's options are set when it is made")

    @contextmanager
    def _in_place(self) -> Iterator[dict[str, np.ndarray]]:
        """Lend the parameters themselves, to code that keeps none of them.

        Calls that begin meanwhile use the weights that were packed last, or wait.
        """
        with writing(self._store.alone):
            yield self._store.memory()

    def state_dict(self, *, torch: bool = False) -> dict[str, np.ndarray]:
        """Copies of the parameters, by name.

        Parameters
        ----------
        torch : bool, default False
            Whether to name the biases as ``torch.nn.LSTM`` does, which has two of them: ours
            becomes ``bias_ih``, and ``bias_hh`` is zero.
        """
        state = {}
        for name, copied in self._store.copies().items():
            if torch and name.startswith("bias_"):
                state[name.replace("bias_", "bias_ih_")] = copied
                state[name.replace("bias_", "bias_hh_")] = np.zeros_like(copied)
            else:
                state[name] = copied
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy in parameters by name: our own, or those of a ``torch.nn.LSTM`` as they are.

        Everything is checked before anything is changed.

        Parameters
        ----------
        state_dict : mapping of str to array
            PyTorch's two biases are summed. Values of another precision are converted.

        Raises
        ------
        KeyError
            Where names are missing or unknown; it lists them.
        ValueError
            Where a shape is wrong.
        TypeError
            Where a value is no array of real numbers.
        """
        given = dict(state_dict)
        for name in self._store.views:
            pair = [name.replace("bias_", bias) for bias in ("bias_ih_", "bias_hh_")]
            if name.startswith("bias_") and name not in given and all(p in given for p in pair):
                first, second = (self._store.checked(name, given.pop(p)) for p in pair)
                given[name] = first + second
        self._store.assign(self._store.checked_all(given, "state_dict"))

    def quantize(self, weights: str = "int8") -> QuantizedLSTM:
        """Return a copy with weights of fewer bits, for inference: smaller, and faster.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}

        Returns
        -------
        QuantizedLSTM
            Called, streamed and saved as this LSTM.

        Raises
        ------
        ValueError
            If the LSTM is of float64, or a weight is not finite.

        Examples
        --------
        >>> cylstm.LSTM(3, 8, seed=0).quantize("int8").weight_ih_l0.dtype
        dtype('int8')
        """
        from cylstm.quantized import QuantizedLSTM

        return QuantizedLSTM(self, weights)

    # Other frameworks

    def to_torch(self) -> dict[str, Any]:
        """Return the parameters as the state dict of a ``torch.nn.LSTM``.

        Returns
        -------
        dict of str to tensor
            To be given to ``load_state_dict`` of an ``nn.LSTM`` of the same arguments; arrays where
            PyTorch is not installed. ``bias_hh`` is zero, since there is one bias here.

        Raises
        ------
        ValueError
            If there are options that PyTorch's LSTM lacks.

        Examples
        --------
        >>> list(cylstm.LSTM(3, 2).to_torch())
        ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
        """
        from cylstm.formats.torch import state_for_torch

        return state_for_torch(self)

    def to_onnx(self, path: str | os.PathLike[str], *, state: bool = False) -> None:
        """Write an ONNX model, of one node for each layer; it needs the onnx package.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced, whole or not at all.
        state : bool, default False
            Whether the model takes the initial state too, as ``h_0`` and ``c_0``.

        Raises
        ------
        ValueError
            If there is a projection, which ONNX lacks.
        ModuleNotFoundError
            If onnx is not installed.

        Notes
        -----
        The model's input is ``x``, its outputs are ``y``, ``h_n`` and ``c_n``, in the shapes of a
        call; the numbers of steps and of sequences are free.
        """
        from cylstm.formats.onnx_write import write_onnx

        write_onnx(self, path, state)

    def to_keras_weights(self) -> list[np.ndarray]:
        """Return the parameters as ``set_weights`` of Keras takes them.

        Returns
        -------
        list of array
            For each layer and direction a kernel (I, 4H), a recurrent kernel (H, 4H) and, with
            `bias`, a bias (4H,): of one layer those of Keras's ``LSTM``, or ``Bidirectional``; of
            several those of a model that stacks such layers.

        Raises
        ------
        ValueError
            If there are options that Keras's LSTM lacks.

        Examples
        --------
        >>> [array.shape for array in cylstm.LSTM(3, 2).to_keras_weights()]
        [(3, 8), (2, 8), (8,)]
        """
        from cylstm.formats.keras import weights_for_keras

        return weights_for_keras(self)

    # Files, pickles, text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters and the configuration as a safetensors file.

        See Also
        --------
        cylstm.load
        """
        write_model(path, "LSTM", self.config, self.state_dict())

    @classmethod
    def _from_saved(cls, config: dict[str, Any], state: Mapping[str, np.ndarray]) -> LSTM:
        lstm = cls.__new__(cls)
        lstm.__setstate__({"config": config, "parameters": state, "rng": None})
        return lstm

    def __getstate__(self) -> dict[str, Any]:
        rng = copy.deepcopy(self._rng)
        return {"config": self.config, "parameters": self.state_dict(), "rng": rng}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._build(checked_options(**state["config"]))
        self._rng = state["rng"]
        self.load_state_dict(state["parameters"])

    def __repr__(self) -> str:
        changed = self._options.changed()
        sizes = f"{changed.pop('input_size')}, {changed.pop('hidden_size')}"
        return f"LSTM({', '.join([sizes, *(f'{n}={v!r}' for n, v in changed.items())])})"


def lstm_from_file(
    path: str | os.PathLike[str], config: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> LSTM:
    """Make the LSTM that a file's configuration and tensors describe."""
    try:
        options = options_from_file(config, len(tensors))
        expected = options.parameter_shapes()
        found = {name: tensor.shape for name, tensor in tensors.items()}
        dtypes = {tensor.dtype.name for tensor in tensors.values()}
        if found != expected or dtypes != {options.dtype}:
            differ = sorted(n for n in expected.keys() | found if expected.get(n) != found.get(n))
            raise ValueError(f"tensors do not fit the configuration: {differ or dtypes}")
        return LSTM._from_saved(config, tensors)
    except (TypeError, ValueError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from None


def options_from_file(config: dict[str, Any], tensors: int) -> Options:
    """Check a file's configuration, and that its number of tensors can be enough."""
    known = set(Options.__dataclass_fields__)
    missing, unknown = sorted(known - set(config)), sorted(set(config) - known)
    if missing or unknown:
        raise ValueError(f"configuration lacks {missing}, has unknown {unknown}")
    options = checked_options(**config)
    if options.num_layers > tensors:  # before the names of so many layers are made
        raise ValueError(f"{options.num_layers} layers, but {tensors} tensors")
    return options
