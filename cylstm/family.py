"""Recurrent networks that can be changed and trained: their parameters, and their files."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from cylstm import checks
from cylstm.core.access import writing
from cylstm.core.cell import Cell
from cylstm.core.network import Network
from cylstm.options import Shared, initialise
from cylstm.parameters import Lent, Parameters
from cylstm.passes import Passes
from cylstm.recurrent import State

if TYPE_CHECKING:
    from cylstm.quantized import Quantized

Own = TypeVar("Own", bound="Trainable[Any]")


class Trainable(Passes[State], Generic[State]):
    """What an LSTM, a GRU and an RNN have beside running: parameters by name, in files too."""

    bias: bool
    bidirectional: bool
    reverse: bool
    clip: float | None
    _options_type: ClassVar[Any]
    _checked: ClassVar[Callable[..., Any]]  # from arguments to such options

    def _make(self, seed: int | None, given: dict[str, Any]) -> None:
        """From the arguments of the constructor, the seed apart."""
        self._build(type(self)._checked(**given))
        rng = self._rng = checks.seeded("seed", seed)
        for name, parameter in self._store.memory().items():
            initialise(name, parameter, self._options, rng)

    def _build(self, options: Shared) -> None:
        """Everything but the parameters' values."""
        self._options = options
        dtype = np.dtype(options.dtype)
        self._store = Parameters(options.parameter_shapes(), dtype)
        self.__dict__.update(asdict(options), dtype=dtype, **self._store.views)
        self._layers = layers_of(options, self._store.memory())
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
        """The arguments that make such a network, but the seed; they can be written as JSON."""
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
            raise AttributeError(f"{name}: {type(self).__name__}: options are set when it is made")

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
            Whether to name the biases as PyTorch does, which has two of them: ours becomes
            ``bias_ih``, and ``bias_hh`` is zero where the equations have one.
        """
        state = self._store.copies()
        if torch and self._options.bias:
            for ending in self._options.endings:
                state = self._with_pair(ending, state)
        return state

    def _with_pair(self, ending: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters with PyTorch's two biases in place of one layer and direction's."""
        made = {}
        for name, array in state.items():
            if name == "bias" + ending:
                made["bias_ih" + ending] = array
                made["bias_hh" + ending] = np.zeros_like(array)
            else:
                made[name] = array
        return made

    def _of_pair(self, ending: str, ih: np.ndarray, hh: np.ndarray) -> dict[str, np.ndarray]:
        """Biases of ours that stand for PyTorch's two."""
        return {"bias" + ending: ih + hh}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy in parameters by name: our own, or those of PyTorch's as they are.

        Everything is checked before anything is changed.

        Parameters
        ----------
        state_dict : mapping of str to array
            PyTorch's two biases are summed where the equations have one. Values of another
            precision are converted.

        Raises
        ------
        KeyError
            Where names are missing or unknown; it lists them.
        ValueError
            Where a shape is wrong.
        TypeError
            Where a value is no array of real numbers.
        """
        given = self._own_names(state_dict)
        self._store.assign(self._store.checked_all(given, "state_dict"))

    def _own_names(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """The same with one bias where PyTorch's has two that stand for it."""
        given = dict(state_dict)
        for ending in self._options.endings:
            own, pair = "bias" + ending, ("bias_ih" + ending, "bias_hh" + ending)
            if own in self._store.views and own not in given and all(p in given for p in pair):
                ih, hh = (self._store.checked(own, given.pop(p)) for p in pair)
                given.update(self._of_pair(ending, ih, hh))
        return given

    def quantize(self, weights: str = "int8") -> Quantized[State]:
        """Return a copy with weights of fewer bits, for inference: smaller, and faster.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}

        Returns
        -------
        QuantizedLSTM, or QuantizedGRU or QuantizedRNN
            Called, streamed and saved as this network.

        Raises
        ------
        ValueError
            If the network is of float64, or a weight is not finite.

        Examples
        --------
        >>> cylstm.LSTM(3, 8, seed=0).quantize("int8").weight_ih_l0.dtype
        dtype('int8')
        """
        from cylstm.quantized import quantize

        return quantize(self, weights)

    def to_torch(self) -> dict[str, Any]:
        """Return the parameters as the state dict of a ``torch.nn.LSTM``, ``GRU`` or ``RNN``.

        Returns
        -------
        dict of str to tensor
            To be given to ``load_state_dict`` of a module of the same arguments; arrays where
            PyTorch is not installed. ``bias_hh`` is zero where there is one bias here.

        Raises
        ------
        ValueError
            If there are options that PyTorch's lacks.

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
            Whether the model takes the initial state too, as ``h_0`` and, of an LSTM, ``c_0``.

        Raises
        ------
        ValueError
            If there is a projection, which ONNX lacks.
        ModuleNotFoundError
            If onnx is not installed.

        Notes
        -----
        The model's input is ``x``, its outputs are ``y``, ``h_n`` and, of an LSTM, ``c_n``, in the
        shapes of a call; the numbers of steps and of sequences are free.
        """
        from cylstm.formats.onnx_write import write_onnx

        write_onnx(self, path, state)

    def to_keras_weights(self) -> list[np.ndarray]:
        """Return the parameters as ``set_weights`` of Keras takes them.

        Returns
        -------
        list of array
            For each layer and direction of an LSTM a kernel (I, 4H), a recurrent kernel (H, 4H)
            and, with `bias`, a bias (4H,): of one layer those of Keras's ``LSTM``, or
            ``Bidirectional``; of several those of a model that stacks such layers. A GRU's are
            those of ``GRU``, an RNN's of ``SimpleRNN``.

        Raises
        ------
        ValueError
            If there are options that Keras's lacks.

        Examples
        --------
        >>> [array.shape for array in cylstm.LSTM(3, 2).to_keras_weights()]
        [(3, 8), (2, 8), (8,)]
        """
        from cylstm.formats.keras import weights_for_keras

        return weights_for_keras(self)

    # Files, pickles, text

    def save(self, path: str | os.PathLike[str], *, check: bool | np.ndarray = False) -> None:
        """Write the parameters and the configuration as a safetensors file.

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

        save_model(path, self._options.kind, self, check)

    @classmethod
    def _from_saved(cls: type[Own], config: dict[str, Any], state: Mapping[str, np.ndarray]) -> Own:
        made = cls.__new__(cls)
        made.__setstate__({"config": config, "parameters": state, "rng": None})
        return made

    @classmethod
    def _from_file(
        cls: type[Own],
        path: str | os.PathLike[str],
        config: dict[str, Any],
        tensors: Mapping[str, np.ndarray],
    ) -> Own:
        """Make the network that a file's configuration and tensors describe."""
        try:
            options = cls._options_from_file(config, len(tensors))
            expected = options.parameter_shapes()
            found = {name: tensor.shape for name, tensor in tensors.items()}
            dtypes = {tensor.dtype.name for tensor in tensors.values()}
            if found != expected or dtypes != {options.dtype}:
                differ = sorted(
                    n for n in expected.keys() | found if expected.get(n) != found.get(n)
                )
                raise ValueError(f"tensors do not fit the configuration: {differ or dtypes}")
            return cls._from_saved(config, tensors)
        except (TypeError, ValueError, MemoryError) as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def _options_from_file(cls, config: dict[str, Any], tensors: int) -> Any:
        """Check a file's configuration, and that its number of tensors can be enough."""
        known = set(cls._options_type.__dataclass_fields__)
        missing, unknown = sorted(known - set(config)), sorted(set(config) - known)
        if missing or unknown:
            raise ValueError(f"configuration lacks {missing}, has unknown {unknown}")
        options = cls._checked(**config)
        if options.num_layers > tensors:  # before the names of so many layers are made
            raise ValueError(f"{options.num_layers} layers, but {tensors} tensors")
        return options

    def __getstate__(self) -> dict[str, Any]:
        rng = copy.deepcopy(self._rng)
        return {"config": self.config, "parameters": self.state_dict(), "rng": rng}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._build(type(self)._checked(**state["config"]))
        self._rng = state["rng"]
        self.load_state_dict(state["parameters"])

    def __repr__(self) -> str:
        changed = self._options.changed()
        sizes = f"{changed.pop('input_size')}, {changed.pop('hidden_size')}"
        given = [sizes, *(f"{n}={v!r}" for n, v in changed.items())]
        return f"{self._options.kind}({', '.join(given)})"


def layers_of(
    options: Shared, arrays: Mapping[str, np.ndarray], beside: tuple[str, ...] = ()
) -> list[list[Cell]]:
    """Make the cells of a network, by layer and direction.

    Parameters
    ----------
    options : Shared
    arrays : mapping of str to array
        The parameters, which the cells share.
    beside : tuple of str
        What the names end in of arrays that some parameters have beside them.
    """
    layers: list[list[Cell]] = [[] for _ in range(options.num_layers)]
    for ending, layer, direction in options.cells():
        own = {
            name + more: arrays[name + ending + more]
            for name in options.layer_shapes(layer)
            for more in ("", *beside)
            if not more or name + ending + more in arrays
        }
        layers[layer].append(
            Cell(
                own,
                kind=options.kind,
                reverse=options.reads_from_end(direction),
                coupled=getattr(options, "coupled", False),
                clip=math.inf if options.clip is None else options.clip,
                activations=options.activations_of(direction),
            )
        )
    return layers
