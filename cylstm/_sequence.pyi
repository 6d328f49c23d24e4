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
        x: ndarray,
        y: ndarray,
        tape: Tape,
        h_0: ndarray,
        c_0: ndarray,
        batch: Batch,
        grad_y: ndarray,
        grad_h: ndarray,
        grad_c: ndarray,
        grad_x: ndarray,
        adds: bool,
    ) -> dict[str, ndarray]: ...
