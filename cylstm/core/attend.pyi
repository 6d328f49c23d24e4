from numpy import ndarray

def attend(
    queries: ndarray,
    memory: ndarray,
    ends: ndarray,
    query_ends: ndarray,
    scale: float,
    context: ndarray,
) -> ndarray: ...
def attend_backward(
    queries: ndarray,
    memory: ndarray,
    ends: ndarray,
    query_ends: ndarray,
    scale: float,
    weights: ndarray,
    grad_context: ndarray,
    grad_queries: ndarray,
    grad_memory: ndarray,
) -> None: ...
