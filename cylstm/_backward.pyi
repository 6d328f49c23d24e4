from numpy import ndarray

from cylstm._inference import Network
from cylstm.batch import Batch

def backward(
    net: Network,
    layer: int,
    direction: int,
    first: int,
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
) -> dict[str, ndarray]: ...
