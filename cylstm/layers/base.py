"""The protocol of layers and models, for inference and training.

A layer keeps nothing between calls: what its backward pass needs is in the tape that its forward
pass returns, and where sequences go on in the next call, their state goes in and out as a value. So
one layer may serve many threads, and many sequences at once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from reprlib import repr as short
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core.access import reading, writing
from cylstm.layers.gradients import Gradient
from cylstm.parameters import Parameters, checked

Array = npt.NDArray[np.floating[Any]]
Input = npt.NDArray[Any]  # of a layer: numbers, or the integers of an embedding


class Layer(ABC):
    """The protocol of all layers and models; a new one gives at least the first three.

    ==========================  ==============================================================
    ``forward(x)``              The output, and a tape for `backward`.
    ``backward(tape, grad_y)``  The gradient of the input, and a dict of the parameters' gradients.
    ``config``                  The arguments that build it, which JSON can hold.
    ``layer(x)``                The output alone: inference.
    ``run(x)``                  The same beside the state; for layers that train otherwise.
    ``named_parameters()``      Pairs of name and array, the array read-only.
    ``edit()``                  A ``with`` block in which the parameters can be changed.
    ``stream(batch_size)``      What takes a step at a time; for layers with a state.
    ==========================  ==============================================================

    Attributes
    ----------
    takes : frozenset of str
        What `forward` and the call take beside `x`, by name: ``state`` (that sequences begin in),
        ``lengths`` (N,) of ragged sequences, ``resets`` (T, N) of bool, where new sequences begin
        within rows, and, in `forward` alone, ``rng``, the
        ``numpy.random.Generator`` of what is random, and ``segment``, as of `cylstm.LSTM.forward`.
        By default nothing.
    keeps_time : bool
        Whether the output has a step for each of the input's.
    steps_alone : bool
        Whether each step of the output follows from that step of the input alone, so that the layer
        can be given one step at a time. By default not.
    batch_first : bool, optional
        Whether sequences are (N, T, ...), not (T, N, ...), for layers to which it matters.
    """

    takes: ClassVar[frozenset[str]] = frozenset()
    keeps_time: bool = True
    steps_alone: bool = False
    batch_first: bool | None = None
    _store: Parameters | None = None  # of the library's own layers

    @abstractmethod
    def forward(self, x: Input) -> tuple[Array, Any]:
        """Return the output, and the tape that `backward` needs."""

    @abstractmethod
    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, and the parameters' gradients by name.

        Parameters
        ----------
        tape : object
            What `forward` returned beside the output; it may be used more than once.
        grad_y : ndarray
            The gradient of the output, of the output's shape.
        """

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, which JSON can hold."""

    def __call__(self, x: Input, **given: Any) -> Array:
        """Return the output alone."""
        return self.run(x, **given)[0]

    def run(self, x: Input, **given: Any) -> tuple[Array, Any]:
        """Return the output, and the state after the last step: None where there is none."""
        y, tape = self.forward(x, **given)
        return y, self.state_after(tape)

    def state_after(self, tape: Any) -> Any:
        """Return the state after the last step of `forward`, to give to the next: None if none."""
        return None

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over pairs of name and array, the array read-only; without override, none."""
        if self._store is not None:
            yield from self._store.views.items()

    def edit(self) -> AbstractContextManager[Any]:
        """Lend copies of the parameters by name, which take effect when the block ends.

        A name may be given another array instead. If the block ends by an exception, or an array is
        none of real numbers of the parameter's shape, nothing is changed.
        """
        return nullcontext({}) if self._store is None else self._store.edit()

    @contextmanager
    def _in_place(self) -> Iterator[Mapping[str, Array]]:
        """As `edit`, to code that keeps none of the arrays and leaves none half changed."""
        with changing([("", self)]) as parameters:
            yield parameters

    def _leaves(self) -> Iterator[tuple[str, Layer]]:
        """Iterate over the layers that this one is made of, and what their names begin with."""
        yield "", self

    @property
    def _stores(self) -> frozenset[Parameters]:
        """Where the parameters are, but those of layers that have their own way."""
        return frozenset() if self._store is None else self._store.alone

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name, all of one moment."""
        with reading(self._stores):
            return {name: parameter.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Set all parameters, or none.

        Parameters
        ----------
        state : mapping of str to ndarray
            The parameters by name, in the shapes of `state_dict`.

        Raises
        ------
        KeyError
            If a parameter is missing, or unknown.
        TypeError
            If one is no array of real numbers.
        ValueError
            If one has another shape.
        """
        with self.edit() as parameters:
            missing = [name for name in parameters if name not in state]
            unexpected = [name for name in state if name not in parameters]
            if missing or unexpected:
                raise KeyError(f"state: missing {missing}, unexpected {unexpected}")
            values = {name: checked(name, state[name], parameters[name]) for name in parameters}
            for name, value in values.items():
                parameters[name][...] = value

    def stream(self, batch_size: int = 1) -> Any:
        """Return what advances sequences a step at a time: it has ``step(x)`` and ``reset(rows)``.

        Parameters
        ----------
        batch_size : int, default 1
            N, how many sequences it advances together.

        Raises
        ------
        ValueError
            If the layer does not say how: by `steps_alone`, or a method of its own.
        """
        checks.whole("batch_size", batch_size)
        if not self.steps_alone:
            raise ValueError(
                f"stream: {type(self).__name__} does not say how it takes a step at a time; "
                "it says so by steps_alone = True, or a method stream"
            )
        return StepsAlone(self)

    def predict(
        self,
        sequences: Any,
        offsets: Any = None,
        *,
        batch_tokens: int | None = None,
        threads: int | None = None,
        batch_first: bool | None = None,
        progress: bool = False,
    ) -> Any:
        """Return the outputs of any number of sequences of any lengths, in their order.

        They are sorted by length, put into batches and scored on all threads.

        Parameters
        ----------
        sequences : list of array, or array
            Each (T_n,), of tokens, or (T_n, F), of features; or, with `offsets`, the steps of all
            sequences one after the other, (S,) or (S, F), as Arrow has them.
        offsets : array of int, (N + 1,), optional
            Where each sequence begins, and the last ends.
        batch_tokens : int, optional
            How many steps, with padding, a batch has at most; by default 4096 to 16,384, by the
            model's size.
        threads : int, optional
            How many batches are scored side by side; `cylstm.get_num_threads` by default.
        batch_first : bool, optional
            Whether the model takes (N, T, ...), where it does not tell.
        progress : bool, default False
            Whether to show a progress bar; it needs tqdm.

        Returns
        -------
        list of array, or array
            Of a model with an output for each step a list, (T_n, F) each, or with `offsets` an
            array (S, F); of others an array (N, F).

        Raises
        ------
        ValueError, TypeError
            If sequences are not such as the model takes.

        Examples
        --------
        >>> from cylstm.layers import Embedding
        >>> words = [np.array([3, 1, 4]), np.array([1, 5])]
        >>> [y.shape for y in Embedding(9, 2, seed=0).predict(words)]
        [(3, 2), (2, 2)]
        """
        from cylstm.predict.calls import predict

        return predict(
            self, sequences, offsets, batch_tokens=batch_tokens, threads=threads,
            batch_first=batch_first, progress=progress,
        )  # fmt: skip

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; it trusts neither argument.

        Parameters
        ----------
        config : dict
            The `config` of the saved layer.
        state : mapping of str to ndarray
            Its `state_dict`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If an argument or parameter is missing, unknown, or not such as it was saved.
        """
        layer = cls(**config)
        if json.loads(json.dumps(layer.config)) != config:  # of tuples JSON makes lists
            raise ValueError(f"config: expected {layer.config}, got {short(config)}")
        layer.load_state_dict(state)
        for name, parameter in layer.named_parameters():
            if parameter.dtype != state[name].dtype:
                raise ValueError(f"{name}: expected {parameter.dtype}, got {state[name].dtype}")
        return layer

    def __repr__(self) -> str:
        """Show the call that builds this layer."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"{type(self).__name__}({arguments})"


class StepsAlone:
    """The steps of a layer that knows no others."""

    has_state = False

    def __init__(self, step: Callable[[Input], Array]) -> None:
        self.step = step

    def reset(self, rows: Any = None) -> None:
        """Nothing to set."""


@contextmanager
def changing(leaves: Sequence[tuple[str, Layer]]) -> Iterator[dict[str, Array]]:
    """Lend the parameters of layers, each with what its names begin with, to be changed in place.

    No other thread sees the half of it; those of layers with a way of their own, as these promise.
    """
    own = {prefix: leaf._store for prefix, leaf in leaves if leaf._store is not None}
    with ExitStack() as stack:
        lent = {
            prefix: stack.enter_context(leaf.edit())
            for prefix, leaf in leaves
            if leaf._store is None
        }
        lent.update({prefix: store.memory() for prefix, store in own.items()})  # or it refuses
        stack.enter_context(writing(frozenset(own.values())))
        yield {prefix + name: array for prefix, _ in leaves for name, array in lent[prefix].items()}


def check_saved_weight(state: Mapping[str, Array], shape: tuple[Any, Any]) -> None:
    """Before a size that a file claims takes memory that its tensors do not."""
    if "weight" not in state or state["weight"].shape != shape:
        raise ValueError(f"weight: expected shape {short(shape)}, got another or none")


def as_array(name: str, value: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array of this dtype, in the machine's byte order."""
    array = checks.is_array(name, value)
    if array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    return array.astype(dtype, copy=False)


def check_gradient(grad_y: Array, shape: tuple[int, ...]) -> None:
    """Check that the gradient of an output has the output's shape."""
    if grad_y.shape != shape:
        raise ValueError(f"grad_y: expected the output's shape {shape}, got {grad_y.shape}")
