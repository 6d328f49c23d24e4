from typing import Any, Final

from numpy import ndarray

from cylstm._sequence import Recurrence
from cylstm.batch import Batch

PRODUCT: Final[str]

State = tuple[ndarray, ndarray]

class Workspace: ...

class Network:
    changes: int
    def __init__(self, layers: list[list[Recurrence]], batch_first: bool) -> None: ...
    def run(self, x: ndarray, y: ndarray, h: ndarray, c: ndarray, batch: Batch) -> None: ...
    def forward(
        self, layer: int, x: ndarray, y: ndarray, h: ndarray, c: ndarray, batch: Batch,
        tapes: list[ndarray | None],
    ) -> None: ...  # fmt: skip
    def zero_state(self, rows: int, rank: int = 3) -> State: ...
    def is_input(self, x: Any) -> bool: ...
    def call(self, x: Any) -> tuple[ndarray, State] | None: ...
    def step(
        self, x: Any, out: Any, h: ndarray, c: ndarray, workspace: Workspace
    ) -> ndarray | None: ...

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
