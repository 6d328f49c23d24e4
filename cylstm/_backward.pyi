from numpy import ndarray

from cylstm._inference import Network
from cylstm._sequence import Tape
from cylstm.batch import Batch

def backward(
    net: Network,
    layer: int,
    direction: int,
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
