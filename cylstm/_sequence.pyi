from collections.abc import Sequence

from numpy import dtype, ndarray

from cylstm.batch import Batch

def aligned_empty(size: int, dtype: dtype) -> ndarray: ...
def copy_all(targets: list[ndarray], sources: list[ndarray]) -> None: ...

class Version:
    changes: int

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
    def run(
        self, x: ndarray, y: ndarray, h: ndarray, c: ndarray, sizes: ndarray, order: ndarray
    ) -> None: ...
    def new_tape(self, rows: int) -> ndarray: ...
    def forward(
        self, x: ndarray, y: ndarray, h: ndarray, c: ndarray, batch: Batch, tape: ndarray
    ) -> None: ...
    def backward(
        self,
        x: ndarray,
        y: ndarray,
        tape: ndarray,
        h_0: ndarray,
        c_0: ndarray,
        batch: Batch,
        grad_y: ndarray,
        grad_h: ndarray,
        grad_c: ndarray,
        grad_x: ndarray,
        adds: bool,
    ) -> dict[str, ndarray]: ...
