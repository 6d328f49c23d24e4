from collections.abc import Sequence

from numpy import ndarray

from cylstm.batch import Batch

Tape = tuple[ndarray, ndarray, ndarray]

class Recurrence:
    parameters: dict[str, ndarray]
    reverse: bool
    def __init__(
        self,
        parameters: dict[str, ndarray],
        *,
        reverse: bool,
        coupled: bool,
        clip: float,
        activations: Sequence[tuple[str, float, float]],
        isa: str = ...,
    ) -> None: ...
    def parameters_changed(self) -> None: ...
    def run(
        self, x: ndarray, y: ndarray, h: ndarray, c: ndarray, sizes: ndarray, order: ndarray
    ) -> None: ...
    def new_tape(self, rows: int) -> Tape: ...
    def forward(
        self, x: ndarray, y: ndarray, h: ndarray, c: ndarray, batch: Batch, tape: Tape
    ) -> None: ...
    def backward(
        self,
        tape: Tape,
        c_0: ndarray,
        batch: Batch,
        grad_y: ndarray,
        grad_h: ndarray,
        grad_c: ndarray,
        grad_z: ndarray,
        grad_outputs: ndarray | None,
    ) -> None: ...
    def input_gradient(self, grad_z: ndarray, grad_x: ndarray) -> None: ...
    def sum_gradients(
        self, tape: Tape, c_0: ndarray, batch: Batch, grad_z: ndarray, grads: dict[str, ndarray]
    ) -> None: ...
    def previous_outputs(self, y: ndarray, h_0: ndarray, batch: Batch) -> ndarray: ...
    def cell_outputs(self, tape: Tape) -> ndarray: ...

def add_outer(r: Recurrence, a: ndarray, b: ndarray, c: ndarray) -> None: ...
