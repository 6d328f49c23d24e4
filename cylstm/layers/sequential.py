"""Layers one after the other, for inference, streams and training; and how they are saved."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from warnings import warn

import numpy as np

from cylstm import checks
from cylstm.core.access import reading
from cylstm.family import Trainable
from cylstm.layers.base import Array, Input, Layer, changing
from cylstm.layers.gradients import Gradient
from cylstm.layers.linear import Linear
from cylstm.layers.outputs import OutputOf, as_layer, looks_up, may_lend, resets_of, taken
from cylstm.layers.quantized import QuantizedLinear
from cylstm.layers.saved import check_saved, kinds_of, load_layers
from cylstm.layers.streams import SequentialStream, named
from cylstm.parameters import Lent, Parameters, checked
from cylstm.quantized import Quantized
from cylstm.recurrent import Recurrent


class Sequential(Layer):
    """Layers one after the other, each fed with the output of the one before it.

    Parameters
    ----------
    *layers : Layer, cylstm.LSTM, cylstm.GRU or cylstm.RNN
        The layers. Of an LSTM the output `y` is passed on; its state begins at zero.

    Raises
    ------
    TypeError
        If one of them is not a layer.
    ValueError
        If there is none, or one stands twice.

    Notes
    -----
    The parameters are called as PyTorch calls them: ``"0.weight_ih_l0"``, ``"1.bias"``.

    Examples
    --------
    >>> import cylstm
    >>> from cylstm.layers import Last
    >>> model = Sequential(cylstm.LSTM(1, 8, seed=0), Last(), Linear(8, 1, seed=0))
    >>> model(np.zeros((20, 5, 1), np.float32)).shape
    (5, 1)
    >>> model[2]
    Linear(in_features=8, out_features=1, bias=True, dtype='float32')
    """

    def __init__(self, *layers: Layer | Trainable[Any]) -> None:
        if not layers:
            raise ValueError("layers: expected at least one, got none")
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError("layers: expected objects of their own, got one twice")
        self._layers = tuple(as_layer(layer, f"layers[{i}]") for i, layer in enumerate(layers))

    @cached_property
    def _look_up(self) -> frozenset[Layer]:
        """The embeddings whose vectors the next layer looks up itself."""
        return self._those_before(looks_up)

    @cached_property
    def _lend(self) -> frozenset[Layer]:
        """The layers whose output the next may have without a copy."""
        return self._those_before(may_lend)

    def _those_before(self, holds: Callable[[Layer, Layer], bool]) -> frozenset[Layer]:
        """Return the layers of which, and of the next, something holds."""
        pairs = zip(self._layers, self._layers[1:], strict=False)
        return frozenset(one for one, after in pairs if holds(one, after))

    @cached_property
    def _stores(self) -> frozenset[Parameters]:  # type: ignore[override]
        return frozenset().union(*(layer._stores for layer in self._layers))

    def _leaves(self) -> Iterator[tuple[str, Layer]]:
        for i, layer in enumerate(self._layers):
            for prefix, leaf in layer._leaves():
                yield f"{i}.{prefix}", leaf

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer | Trainable[Any]:
        """Return one layer as it was given."""
        layer = self._layers[index]
        return layer.lstm if isinstance(layer, OutputOf) else layer

    @property
    def config(self) -> dict[str, Any]:
        """The kind and the configuration of each layer."""
        return {
            "layers": [{"kind": type(layer).__name__, "config": layer.config} for layer in self]
        }

    def __repr__(self) -> str:
        """Show the call that builds this model."""
        return f"Sequential({', '.join(map(repr, self))})"

    @property
    def takes(self) -> frozenset[str]:  # type: ignore[override]
        """What the layers take, all together."""
        return frozenset().union(*(layer.takes for layer in self._layers))

    @property
    def keeps_time(self) -> bool:  # type: ignore[override]
        """Whether the output has a step for each of the input's."""
        return all(layer.keeps_time for layer in self._layers)

    @property
    def batch_first(self) -> bool | None:  # type: ignore[override]
        """Whether sequences are (N, T, ...); None if it matters to no layer."""
        said = {layer.batch_first for layer in self._layers} - {None}
        if len(said) > 1:
            raise ValueError("batch_first: expected the same of all layers, got both")
        return said.pop() if said else None

    def quantize(self, weights: str = "int8") -> Sequential:
        """Return a copy for inference, whose recurrent and linear layers have smaller weights.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}

        Raises
        ------
        ValueError
            If no layer has such weights, or one's are of float64 or not finite.

        Examples
        --------
        >>> model = Sequential(cylstm.LSTM(4, 8, seed=0), Linear(8, 9, seed=0))
        >>> model.quantize("int8")[0]
        QuantizedLSTM(4, 8, weights='int8')
        """
        made: list[Layer | Recurrent[Any]] = []
        for i, layer in enumerate(self):
            if isinstance(layer, Trainable):
                made.append(named(f"layers[{i}]", layer.quantize, weights))
            elif type(layer) is Linear:
                made.append(named(f"layers[{i}]", QuantizedLinear.of, layer, weights))
            else:
                made.append(copy.deepcopy(layer))
        if not any(isinstance(layer, (Quantized, QuantizedLinear)) for layer in made):
            raise ValueError("layers: expected an LSTM or a Linear to quantize")
        return Sequential(*made)

    def __call__(  # type: ignore[override]
        self,
        x: Input,
        state: list[Any] | None = None,
        lengths: checks.Lengths | None = None,
        resets: Any = None,
    ) -> Array:
        """Return the output alone; see `run`."""
        return self.run(x, state, lengths, resets)[0]

    def run(
        self,
        x: Input,
        state: list[Any] | None = None,
        lengths: checks.Lengths | None = None,
        resets: Any = None,
    ) -> tuple[Array, list[Any]]:
        """Return the output, and the state after the last step; the layers keep nothing.

        The parameters of all layers are those of one moment.

        Parameters
        ----------
        x : ndarray
            The first layer's input.
        state : list, optional
            What an earlier run over the same sequences returned, to go on from there.
        lengths : array of int, (N,), optional
            Each sequence's own length, for the layers up to one that does not keep time.
        resets : array of bool, (T, N) or (N, T), optional
            Where new sequences begin within rows, for the same layers; see `cylstm.LSTM`.
        """
        states = []
        with reading(self._stores):
            for layer, own in zip(self._layers, self._states(state), strict=True):
                given = taken(layer, state=own, lengths=lengths, **resets_of(layer, resets))
                if layer in self._look_up:
                    x, after = layer.looked_up(x), None
                else:
                    x, after = layer.run(x, **given)
                states.append(after)
                lengths, resets = (lengths, resets) if layer.keeps_time else (None, None)
        return x, states

    def forward(
        self,
        x: Input,
        state: list[Any] | None = None,
        lengths: checks.Lengths | None = None,
        rng: np.random.Generator | None = None,
        segment: int | None = None,
        resets: Any = None,
    ) -> tuple[Array, list[Any]]:
        """Return the output, and a tape: those of the layers.

        Parameters
        ----------
        x, state, lengths, resets
            As for `run`; a state from `state_after` does as well.
        rng : numpy.random.Generator, optional
            Source of dropout; each layer's own by default.
        segment : int, optional
            As for `cylstm.LSTM.forward`.
        """
        tapes, is_lent = [], False
        with reading(self._stores):
            for layer, own in zip(self._layers, self._states(state), strict=True):
                more = resets_of(layer, resets)
                given = taken(layer, state=own, lengths=lengths, rng=rng, segment=segment, **more)
                lends = layer in self._lend
                if layer in self._look_up:
                    x, tape = layer.forward_looked_up(x)
                elif isinstance(layer, (OutputOf, Linear)) and (is_lent or lends):
                    x, tape = layer._forward_lent(x, is_lent=is_lent, lends=lends, **given)
                else:
                    x, tape = layer.forward(x, **given)
                tapes.append(tape)
                is_lent = lends
                lengths, resets = (lengths, resets) if layer.keeps_time else (None, None)
        return x, tapes

    def state_after(self, tape: list[Any]) -> list[Any]:
        """Return the state after the last step of `forward`, to give to the next."""
        return [layer.state_after(own) for layer, own in zip(self._layers, tape, strict=True)]

    def _states(self, state: Any) -> list[Any]:
        """Return one state a layer."""
        if state is None:
            return [None] * len(self)
        if not isinstance(state, list) or len(state) != len(self):
            raise ValueError(f"state: expected a list, one for each of {len(self)} layers")
        return state

    def stream(self, batch_size: int = 1) -> SequentialStream:
        """Make a stream: the model with its state, to be advanced step by step.

        Parameters
        ----------
        batch_size : int, default 1
            N, how many sequences it advances together.

        Raises
        ------
        ValueError
            If a layer does not say how it takes a step at a time, or reads from the end, or needs
            steps after a layer that keeps one of them.

        Examples
        --------
        >>> from cylstm.layers import Embedding
        >>> lstm = cylstm.LSTM(4, 8, seed=0)
        >>> model = Sequential(Embedding(9, 4, seed=0), lstm, Linear(8, 9, seed=0))
        >>> stream = model.stream()
        >>> logits = [stream.step(np.array([word])) for word in (3, 1, 4)]
        >>> logits[0].shape
        (1, 9)
        """
        return SequentialStream(self._layers, checks.whole("batch_size", batch_size))

    def backward(self, tape: list[Any], grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, and the parameters' gradients by name."""
        grads = {}
        with reading(self._stores):
            for i, layer in reversed(list(enumerate(self._layers))):
                grad_y, layer_grads = layer.backward(tape[i], grad_y)
                grads.update(_prefixed(i, layer_grads))
        return grad_y, grads

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over pairs of name and array, the array read-only."""
        for i, layer in enumerate(self._layers):
            yield from _prefixed(i, dict(layer.named_parameters())).items()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all parameters, or none, from our own by name or PyTorch's as they are.

        Parameters
        ----------
        state : mapping of str to array
            Such as the ``state_dict()`` of a ``torch.nn.Module`` whose parts are called as the
            layers here, ``"0"`` and on; of recurrent layers PyTorch's two biases are summed where
            the equations have one.

        Raises
        ------
        KeyError, TypeError, ValueError
            As of `Layer.load_state_dict`.
        """
        super().load_state_dict(self._own_names(state))

    def _own_names(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The same with one bias where PyTorch's has two that stand for it."""
        found = dict(state)
        for i, layer in enumerate(self):
            if isinstance(layer, (Trainable, Sequential)):
                own = [name for name in found if name.startswith(f"{i}.")]
                given = {name.partition(".")[2]: found.pop(name) for name in own}
                found |= _prefixed(i, layer._own_names(given))
        return found

    def to_torch(self) -> dict[str, Any]:
        """Return the parameters as a state dict of PyTorch's.

        Returns
        -------
        dict of str to tensor
            For a module whose parts are called ``"0"`` and on, as those of ``nn.Sequential`` and
            ``nn.ModuleList`` are; arrays where PyTorch is not installed. `load_state_dict` is the
            way back.

        Raises
        ------
        ValueError
            If a layer has parameters and PyTorch lacks it, or an option of it.

        Examples
        --------
        >>> from cylstm.layers import LayerNorm
        >>> list(Sequential(LayerNorm(3), Linear(3, 2)).to_torch())
        ['0.weight', '0.bias', '1.weight', '1.bias']
        """
        from cylstm.formats.torch import states_for_torch

        return states_for_torch(self)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write an ONNX model, whose input is ``x`` and whose output ``y``; it needs onnx.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced, whole or not at all. `cylstm.load` reads it.

        Raises
        ------
        ValueError
            If a layer is none that ONNX has.
        ModuleNotFoundError
            If onnx is not installed.

        Notes
        -----
        The numbers of steps and of sequences are free; the model takes neither lengths nor a state.
        """
        from cylstm.formats.onnx_layers import write_layers

        write_layers(self, path)

    @contextmanager
    def edit(self) -> Iterator[Lent]:
        """Lend copies of the parameters by name; see `Layer.edit`. All layers change, or none."""
        for _, leaf in self._leaves():
            if leaf._store is not None:
                leaf._store.memory()  # or it refuses
        lent = Lent(self.state_dict())
        try:
            yield lent
        finally:
            values = lent.returned()
        like = dict(self.named_parameters())
        values = {name: checked(name, values[name], like[name]) for name in like}
        with self._in_place() as parameters:
            for name, value in values.items():
                parameters[name][...] = value

    @contextmanager
    def _in_place(self) -> Iterator[Mapping[str, Array]]:
        with changing(list(self._leaves())) as parameters:
            yield parameters

    def __getstate__(self) -> dict[str, Any]:
        with reading(self._stores):  # between layers pickled one by one a step could come
            return {"_layers": copy.deepcopy(self._layers)}

    def save(self, path: str | os.PathLike[str], *, check: bool | Input = False) -> None:
        """Save the whole model as one safetensors file.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced, whole or not at all.
        check : bool or array, default False
            Whether the file keeps a small input and the output, so that `cylstm.load` tests itself
            by them; or the input to keep.

        Raises
        ------
        TypeError
            If a layer is neither one of the library's own nor of a class that was given to
            `cylstm.layers.register`, which alone `cylstm.load` can build.
        ValueError
            If a layer of such a class is not what its config and parameters make anew.

        Examples
        --------
        >>> import cylstm, os, tempfile
        >>> from cylstm.layers import Last
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> Sequential(Last(), Linear(2, 3)).save(path)
        >>> cylstm.load(path)[1]
        Linear(in_features=2, out_features=3, bias=True, dtype='float32')
        """
        check_saved(self)
        from cylstm.selfcheck import save_model

        save_model(path, "Sequential", self, check)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Any:
        """Call `cylstm.load`, which is the name to use."""
        from cylstm.opening import load

        warn("Sequential.load: it is called cylstm.load now", DeprecationWarning, stacklevel=2)
        return load(path)

    @classmethod
    def _from_file(
        cls,
        path: Any,
        config: Mapping[str, Any],
        tensors: Mapping[str, Array],
        layers: Mapping[str, type[Layer]] | None = None,
    ) -> Sequential:
        """Make the model that a file's configuration and tensors describe."""
        kinds = kinds_of(layers)
        try:
            return cls(*load_layers(config, tensors, kinds))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)}: {error.args[0]}") from error


def _prefixed(index: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's arrays under their names in the model."""
    return {f"{index}.{name}": array for name, array in arrays.items()}
