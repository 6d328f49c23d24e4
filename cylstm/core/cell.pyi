from collections.abc import Sequence

from numpy import ndarray

class Cell:
    parameters: dict[str, ndarray]
    reverse: bool
    def __init__(
        self,
        parameters: dict[str, ndarray],
        *,
        kind: str,
        reverse: bool,
        clip: float,
        activations: Sequence[tuple[str, float, float]],
        coupled: bool = False,
        isa: str = ...,
        product: str = ...,
    ) -> None: ...
    def new_tape(self, rows: int) -> ndarray: ...
