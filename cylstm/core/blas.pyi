from numpy import ndarray

def _gemm_memview(
    transpose_a: bool,
    transpose_b: bool,
    alpha: float,
    a: ndarray,
    b: ndarray,
    beta: float,
    c: ndarray,
) -> None: ...
def _gemv_memview(
    transpose_a: bool, alpha: float, a: ndarray, x: ndarray, beta: float, y: ndarray
) -> None: ...
