from collections.abc import Sequence

from numpy import ndarray

class Recurrence:
    parameters: dict[str, ndarray]
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
    def forward(
        self, x: ndarray, y: ndarray, h: ndarray, c: ndarray, sizes: ndarray, offsets: ndarray
    ) -> tuple[ndarray, ndarray, ndarray]: ...
    def backward(
        self,
        tape: tuple[ndarray, ndarray, ndarray],
        x: ndarray,
        y: ndarray,
        h_0: ndarray,
        c_0: ndarray,
        sizes: ndarray,
        offsets: ndarray,
        grad_y: ndarray,
        grad_h: ndarray,
        grad_c: ndarray,
        grad_x: ndarray,
    ) -> dict[str, ndarray]: ...
