"""The LSTM: parameters, layers and directions, inference, training passes, files."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.batch import Batch
from cylstm.core.access import writing
from cylstm.core.cell import Cell
from cylstm.core.network import Network
from cylstm.io.safetensors import write_model
from cylstm.options import STANDARD, Options, checked_options, initialise
from cylstm.parameters import Lent, Parameters
from cylstm.stream import Stream

State = tuple[np.ndarray, np.ndarray]


class LSTM:
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

    _rng: np.random.Generator | None

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

    # Inference

    def __call__(
        self,
        x: np.ndarray,
        state: State | None = None,
        lengths: Any = None,
        *,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """Run over whole sequences, keeping nothing.

        Parameters
        ----------
        x : array, (T, N, I), (N, T, I) with `batch_first`, or (T, I)
            Of the LSTM's dtype, in any layout.
        state : (h_0, c_0), optional
            Arrays (L D, N, R) and (L D, N, H), or without N for an x without it; zero by default.
        lengths : array of int, (N,), optional
            Each sequence's own length, from 0 to T. y is zero past it, the reverse direction starts
            at it, and the state returned is that of its last step.
        out : array, optional
            Where to write y.

        Returns
        -------
        y : array, (T, N, D R), (N, T, D R) or (T, D R)
            The last layer's h at each step.
        (h_n, c_n) : arrays, as `state`
            The state of each layer and direction after its last step.

        Raises
        ------
        ValueError, TypeError
            For an argument of the wrong rank, shape or dtype.
        MemoryError
            If the output cannot be had.

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, bidirectional=True, seed=0)
        >>> x = np.ones((6, 2, 3), np.float32)
        >>> y, (h_n, c_n) = lstm(x, lengths=[6, 2])
        >>> y.shape, h_n.shape
        ((6, 2, 8), (2, 2, 4))
        >>> bool((y[2:, 1] == 0).all())
        True
        """
        if state is lengths is out is None:
            fast = self._network.call(x)
            if fast is not None:
                return fast
        x, batch, unbatched = self._checked_input(x, lengths)
        h, c = self._initial_state(state, batch, unbatched)
        steps, size = batch.shape
        y = self._empty_output(steps, size)
        if out is not None:
            self._check_out(out, self._as_given(y, unbatched))
            direct = self._time_major(out, unbatched)
            if checks.is_regular(out, self.dtype) and not np.may_share_memory(out, x):
                y = direct
        if batch.ragged:
            y[...] = 0
        self._run(batch, x, y, h, c)
        if out is not None and y is not direct:
            direct[...] = y
        given = self._as_given(y, unbatched) if out is None else out
        return given, self._given_state(batch, h, c, unbatched)

    def _run(
        self, batch: Batch, x: np.ndarray, y: np.ndarray, h: np.ndarray, c: np.ndarray
    ) -> None:
        """All layers; h, c (L D, N, ...) are sorted as `batch` is, and end as the last state."""
        self._network.run(x, y, h, c, batch)

    def stream(self, batch_size: int = 1) -> Stream:
        """Make a stream: the LSTM with its state, to be advanced a step, or some, at a time.

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, seed=0)
        >>> x = np.ones((6, 1, 3), np.float32)
        >>> stream = lstm.stream()
        >>> steps = [stream.step(x_t) for x_t in x]
        >>> bool(np.allclose(np.stack(steps), lstm(x)[0], atol=1e-6))
        True
        """
        return Stream(self, batch_size)

    # Training

    def forward(
        self,
        x: np.ndarray,
        state: State | None = None,
        lengths: Any = None,
        *,
        rng: np.random.Generator | None = None,
        segment: int | None = None,
    ) -> tuple[np.ndarray, State, Tape]:
        """Run as in training: dropout acts, and what `backward` needs is kept.

        Parameters
        ----------
        x, state, lengths
            As for inference.
        rng : numpy.random.Generator, optional
            Source of dropout; the LSTM's own by default.
        segment : int, optional
            Keep of a layer its input, its output, and its state at every so many steps, and compute
            the gates between them again in `backward` [4]_: for long sequences, whose gates take
            6 H values a step. It costs one more `forward`; gradients are the same but for rounding.

        Returns
        -------
        y, (h_n, c_n)
            As for inference.
        tape : Tape
            For `backward`.

        References
        ----------
        .. [4] T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training deep nets with sublinear memory
           cost", 2016. https://arxiv.org/abs/1604.06174

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, seed=0)
        >>> x = np.ones((6, 2, 3), np.float32)
        >>> y, (h_n, c_n), tape = lstm.forward(x)
        >>> grad_x, (grad_h0, grad_c0), grads = lstm.backward(tape, np.ones_like(y))
        >>> grad_x.shape, sorted(grads)
        ((6, 2, 3), ['bias_l0', 'weight_hh_l0', 'weight_ih_l0'])
        """
        rng = self._own_rng() if rng is None else checks.generator("rng", rng)
        x, batch, unbatched = self._checked_input(x, lengths)
        h, c = self._initial_state(state, batch, unbatched)
        if segment is not None:
            segment = checks.whole("segment", segment, 1)
        with self._store.reading():
            changes = self._store.version.changes
            tape = Tape(self, changes, batch, unbatched, batch.parts(segment), [])
            rows = self._forward_layers(tape, batch.pack(x, own=True), h, c, rng)
        given = self._given_rows(batch, rows, unbatched, kept=True)
        return given, self._given_state(batch, h, c, unbatched), tape

    def _forward_layers(
        self, tape: Tape, rows: np.ndarray, h: np.ndarray, c: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Run and tape all layers; return the last one's y in packed rows."""
        directions, width = self._options.directions, self._options.output_size
        for layer in range(self.num_layers):
            mask = self._dropout_mask(rows, rng) if layer and self.dropout else None
            if mask is not None:
                rows = rows * mask
            kept = TapeOfLayer(
                rows, mask, np.empty((len(rows), directions * width), self.dtype), []
            )
            own = slice(layer * directions, (layer + 1) * directions)
            self._forward_layer(layer, kept, h[own], c[own], tape.parts)
            tape.layers.append(kept)
            rows = kept.y
        return rows

    def _forward_layer(
        self, layer: int, kept: TapeOfLayer, h: np.ndarray, c: np.ndarray, parts: Parts
    ) -> None:
        """Write the layer's y, and its starts; h, c (D, N, ...) end as the last state."""
        cells = self._layers[layer]
        if len(parts) == 1:
            tapes = [cell.new_tape(len(kept.x)) for cell in cells]
            kept.starts = [[Start(h[d].copy(), c[d].copy(), tapes[d])] for d in range(len(tapes))]
            self._run_taped(layer, kept.x, kept.y, h, c, parts[0][1], tapes)
            return
        for d, cell in enumerate(cells):
            kept.starts.append([])
            for rows, batch in parts[:: -1 if cell.reverse else 1]:
                kept.starts[d].append(Start(h[d].copy(), c[d].copy(), None))
                tapes = self._tapes_of_one(layer, d, batch)
                self._run_taped(layer, kept.x[rows], kept.y[rows], h, c, batch, tapes)

    def _tapes_of_one(self, layer: int, direction: int, batch: Batch) -> list[Any]:
        """As `_run_taped` wants them, to run one direction."""
        cells = self._layers[layer]
        return [
            cell.new_tape(batch.count) if d == direction else None for d, cell in enumerate(cells)
        ]

    def _run_taped(
        self, layer: int, x: np.ndarray, y: np.ndarray, h: np.ndarray, c: np.ndarray,
        batch: Batch, tapes: list[Any],
    ) -> None:  # fmt: skip
        """Run those of a layer's directions that have a tape to write."""
        self._network.forward(layer, x, y, h, c, batch, tapes)

    def _own_rng(self) -> np.random.Generator:
        """One that is made when it is first asked for: numpy.random is slow to import."""
        if self._rng is None:
            self._rng = np.random.default_rng()
        return self._rng

    def _dropout_mask(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kept = rng.random(rows.shape, self.dtype) >= self.dropout
        return kept * self.dtype.type(1 / (1 - self.dropout) if self.dropout < 1 else 0)

    def backward(
        self, tape: Tape, grad_y: np.ndarray, grad_state: State | None = None
    ) -> tuple[np.ndarray, State, dict[str, np.ndarray]]:
        """Backpropagation through time: the gradients of all inputs and parameters.

        Parameters
        ----------
        tape : Tape
            From `forward` of this LSTM, with the parameters as they are now. It is not used up.
        grad_y : array, as y
            The loss's gradient by y. What is past a sequence's length is not read.
        grad_state : (grad_hn, grad_cn), optional
            By h_n and c_n; zero by default.

        Returns
        -------
        grad_x : array, as x
        (grad_h0, grad_c0) : arrays, as the state
        grads : dict of str to array
            For each parameter.

        Raises
        ------
        ValueError
            If the tape is another LSTM's, or older than a change of the parameters.
        """
        with self._store.reading():
            return self._backward(tape, grad_y, grad_state)

    def _backward(
        self, tape: Tape, grad_y: np.ndarray, grad_state: State | None
    ) -> tuple[np.ndarray, State, dict[str, np.ndarray]]:
        self._check_tape(tape)
        batch, unbatched = tape.batch, tape.unbatched
        steps, size = batch.shape
        directions, width = self._options.directions, self._options.output_size
        wide = self._given_shape(steps, size, directions * width, unbatched)
        grad_y = checks.array("grad_y", grad_y, self.dtype, wide)
        grad_rows = batch.pack(self._time_major(grad_y, unbatched))
        grad_h, grad_c = self._initial_state(
            grad_state, batch, unbatched, "grad_state", "grad_", "n"
        )
        by_cell = {}
        for layer in reversed(range(self.num_layers)):
            kept = tape.layers[layer]
            grad_x = np.empty_like(kept.x)
            for direction in range(directions):
                by_cell[layer * directions + direction] = self._backward_direction(
                    tape, layer, direction, grad_rows, grad_h, grad_c, grad_x
                )
            grad_rows = grad_x if kept.mask is None else grad_x * kept.mask
        grads = {
            name + ending: grad
            for k, ending in enumerate(self._options.endings)
            for name, grad in by_cell[k].items()
        }
        given = self._given_rows(batch, grad_rows, unbatched, kept=False)
        return given, self._given_state(batch, grad_h, grad_c, unbatched), grads

    def _backward_direction(
        self,
        tape: Tape,
        layer: int,
        direction: int,
        grad_y: np.ndarray,
        grad_h: np.ndarray,
        grad_c: np.ndarray,
        grad_x: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The parameters' gradients; of grad_h and grad_c its part becomes h_0's and c_0's.

        grad_x is written by the first direction, and added to by the second.
        """
        kept, cell = tape.layers[layer], self._layers[layer][direction]
        grads: dict[str, np.ndarray] = {}
        parts = tape.parts[:: 1 if cell.reverse else -1]
        for (rows, batch), start in zip(parts, kept.starts[direction][::-1], strict=True):
            gates = start.tape
            if gates is None:
                gates = self._taped_again(layer, direction, kept, rows, batch, start)
            more = self._network.backward(
                layer, direction, rows.start, kept.x, kept.y, gates, start.h, start.c, batch,
                grad_y, grad_h, grad_c, grad_x,
            )  # fmt: skip
            grads = {name: grads[name] + more[name] for name in more} if grads else more
        return grads

    def _taped_again(
        self, layer: int, direction: int, kept: TapeOfLayer, rows: slice, batch: Batch, start: Start
    ) -> Any:
        """The tape of a part of which only the start was kept."""
        directions = self._options.directions
        tapes = self._tapes_of_one(layer, direction, batch)
        h, c = ([state.copy()] * directions for state in (start.h, start.c))
        self._run_taped(layer, kept.x[rows], np.empty_like(kept.y[rows]), h, c, batch, tapes)
        return tapes[direction]

    def _check_tape(self, tape: Any) -> None:
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.lstm is not self:
            raise ValueError("tape: expected one of this LSTM's, got another's")
        if tape.changes != self._store.version.changes or tape.changes % 2:
            raise ValueError("tape: the parameters have changed since forward; run it again")

    # Shapes. Within, everything is (T, N, F); outside it is as the caller gave it.

    def _given_shape(self, steps: Any, size: Any, width: int, unbatched: bool) -> tuple[Any, ...]:
        if unbatched:
            return steps, width
        return (size, steps, width) if self.batch_first else (steps, size, width)

    def _time_major(self, given: np.ndarray, unbatched: bool = False) -> np.ndarray:
        """A view (T, N, F) of an array in the caller's order of axes."""
        if unbatched:
            return given[:, None]
        return given.swapaxes(0, 1) if self.batch_first else given

    def _as_given(self, x: np.ndarray, unbatched: bool = False) -> np.ndarray:
        """The inverse of `_time_major`."""
        if unbatched:
            return x[:, 0]
        return x.swapaxes(0, 1) if self.batch_first else x

    def _empty(self, steps: int, size: int, width: int) -> np.ndarray:
        """(T, N, F), contiguous in the caller's order."""
        return self._time_major(np.empty(self._given_shape(steps, size, width, False), self.dtype))

    def _given_rows(
        self, batch: Batch, rows: np.ndarray, unbatched: bool, kept: bool
    ) -> np.ndarray:
        """Packed rows (S, F) as the caller wants them: a copy, if they are kept."""
        steps, size = batch.shape
        if batch.ragged or self.batch_first:
            x = self._empty(steps, size, rows.shape[1])
            batch.unpack(rows, x)
        else:
            x = (rows.copy() if kept else rows).reshape(steps, size, rows.shape[1])
        return self._as_given(x, unbatched)

    def _empty_output(self, steps: int, size: int) -> np.ndarray:
        return self._empty(steps, size, self._options.directions * self._options.output_size)

    def _checked_input(self, x: Any, lengths: Any) -> tuple[np.ndarray, Batch, bool]:
        if not self._network.is_input(x):
            x = checks.is_array("x", x)
            _check_rows(x)
            shape = self._given_shape("T", "N", self.input_size, x.ndim == 2)
            x = checks.array("x", x, self.dtype, shape)
        unbatched = x.ndim == 2
        x = self._time_major(x, unbatched)
        steps, size = x.shape[:2]
        if lengths is not None:
            lengths = checks.lengths(np.atleast_1d(lengths) if unbatched else lengths, steps, size)
        return x, Batch(steps, size, lengths), unbatched

    def _check_out(self, out: Any, like: np.ndarray) -> None:
        if not isinstance(out, np.ndarray) or (
            isinstance(out, np.matrix) or checks.is_of_numpy_ma(out)
        ):
            raise TypeError(f"out: expected an array, got {type(out).__name__}")
        if out.dtype != self.dtype:
            raise TypeError(f"out: expected dtype {self.dtype}, got {out.dtype}")
        if out.shape != like.shape:
            raise ValueError(f"out: expected shape {like.shape}, got {out.shape}")
        if not out.flags.writeable:
            raise ValueError("out: expected a writable array, got a read-only one")

    def _initial_state(
        self, state: Any, batch: Batch, unbatched: bool,
        name: str = "state", before: str = "", after: str = "_0",
    ) -> State:  # fmt: skip
        """Sorted copies of (L D, N, R) and (L D, N, H)."""
        count, size = self.num_layers * self._options.directions, batch.shape[1]
        if state is None:
            return self._network.zero_state(size)
        names = f"{before}h{after}", f"{before}c{after}"
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            expected = f"{name}: expected a pair ({names[0]}, {names[1]})"
            if isinstance(state, (tuple, list)):
                raise ValueError(f"{expected}, got {len(state)}")
            raise TypeError(f"{expected}, got {type(state).__name__}")
        sizes = (count,) if unbatched else (count, size)
        h = checks.array(names[0], state[0], self.dtype, (*sizes, self._options.output_size))
        c = checks.array(names[1], state[1], self.dtype, (*sizes, self.hidden_size))
        if unbatched:
            h, c = h[:, None], c[:, None]
        return batch.sort(h), batch.sort(c)

    def _given_state(self, batch: Batch, h: np.ndarray, c: np.ndarray, unbatched: bool) -> State:
        h, c = batch.unsort(h), batch.unsort(c)
        return (h[:, 0], c[:, 0]) if unbatched else (h, c)

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


Parts = list[tuple[slice, Batch]]


@dataclass(eq=False, slots=True)
class Start:
    """The state in which a direction came to a part of the steps, and its tape if that is kept."""

    h: np.ndarray  # (N, R), in the sorted order
    c: np.ndarray  # (N, H)
    tape: np.ndarray | None


@dataclass(eq=False, slots=True)
class TapeOfLayer:
    """What one layer's forward pass leaves, in packed rows."""

    x: np.ndarray
    mask: np.ndarray | None  # dropout's, on x
    y: np.ndarray
    starts: list[list[Start]]  # of each direction, in the order in which it came to the parts


@dataclass(eq=False, slots=True)
class Tape:
    """What `LSTM.forward` keeps for `LSTM.backward`: opaque, and good for that LSTM alone."""

    lstm: LSTM
    changes: int  # of the parameters, until then
    batch: Batch
    unbatched: bool
    parts: Parts
    layers: list[TapeOfLayer]


def _check_rows(x: np.ndarray) -> None:
    rows = math.prod(x.shape[:-1])
    if rows > checks.LARGEST:
        raise ValueError(
            f"x: expected at most {checks.LARGEST} steps in all sequences together, got {rows}; "
            "run it in parts, carrying the state"
        )


def lstm_from_file(
    path: str | os.PathLike[str], config: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> LSTM:
    """Make the LSTM that a file's configuration and tensors describe."""
    known = set(Options.__dataclass_fields__)
    missing, unknown = sorted(known - set(config)), sorted(set(config) - known)
    if missing or unknown:
        raise ValueError(f"{path}: configuration lacks {missing}, has unknown {unknown}")
    try:
        options = checked_options(**config)
        if options.num_layers > len(tensors):  # before the names of so many layers are made
            raise ValueError(f"{options.num_layers} layers, but {len(tensors)} tensors")
        expected = options.parameter_shapes()
        found = {name: tensor.shape for name, tensor in tensors.items()}
        dtypes = {tensor.dtype.name for tensor in tensors.values()}
        if found != expected or dtypes != {options.dtype}:
            differ = sorted(n for n in expected.keys() | found if expected.get(n) != found.get(n))
            raise ValueError(f"tensors do not fit the configuration: {differ or dtypes}")
        return LSTM._from_saved(config, tensors)
    except (TypeError, ValueError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from None
