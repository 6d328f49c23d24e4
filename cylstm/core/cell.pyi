from collections.abc import Sequence

from numpy import ndarray

class Cell:
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
        product: str = ...,
    ) -> None: ...
    def new_tape(self, rows: int) -> ndarray: ...
