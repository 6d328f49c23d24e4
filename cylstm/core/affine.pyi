from numpy import ndarray

from cylstm.core.weights import Version

class Affine:
    def __init__(
        self,
        weight: ndarray,
        bias: ndarray | None,
        version: Version,
        *,
        isa: str = ...,
        product: str = ...,
    ) -> None: ...
    def run(self, x: ndarray) -> ndarray: ...
    def call(self, x: ndarray) -> ndarray | None: ...
    def backward(self, x: ndarray, grad_y: ndarray) -> tuple[ndarray, ndarray, ndarray | None]: ...
