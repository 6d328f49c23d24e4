from numpy import ndarray

def sgd(
    parameter: ndarray,
    gradient: ndarray,
    rows: ndarray,
    velocity: ndarray,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None: ...
def adam(
    parameter: ndarray,
    gradient: ndarray,
    rows: ndarray,
    mean: ndarray,
    square: ndarray,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    correction: float,
    weight_decay: float,
    shrink: float,
) -> None: ...
def rmsprop(
    parameter: ndarray,
    gradient: ndarray,
    rows: ndarray,
    square: ndarray,
    velocity: ndarray,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None: ...
def sum_of_squares(x: ndarray) -> float: ...
