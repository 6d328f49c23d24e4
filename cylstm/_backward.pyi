from numpy import ndarray

from cylstm._inference import Network
from cylstm._sequence import Recurrence, Tape
from cylstm.batch import Batch

def backward(
    net: Network,
    layer: int,
    direction: int,
    tape: Tape,
    c_0: ndarray,
    batch: Batch,
    grad_y: ndarray,
    grad_h: ndarray,
    grad_c: ndarray,
    grad_z: ndarray,
    grad_outputs: ndarray | None,
) -> None: ...
def input_gradient(
    net: Network, layer: int, direction: int, grad_z: ndarray, grad_x: ndarray
) -> None: ...
def add_outer(r: Recurrence, a: ndarray, b: ndarray, c: ndarray) -> None: ...
