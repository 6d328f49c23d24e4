from typing import Any

from numpy import ndarray

from cylstm.batch import Batch
from cylstm.core.cell import Cell
from cylstm.core.lookup import Tables
from cylstm.core.memory import Spare
from cylstm.core.weights import Version
from cylstm.core.workspace import Workspace
from cylstm.lookup import LookedUp
from cylstm.parameters import Parameters

State = tuple[ndarray, ndarray | None]

class Network:
    has_c: bool
    may_look_up: bool
    spare: Spare
    def __init__(self, layers: list[list[Cell]], batch_first: bool, store: Parameters) -> None: ...
    def tables(self, vectors: ndarray) -> Tables: ...
    def tables_for(self, x: LookedUp) -> Tables | None: ...
    def run(
        self, x: ndarray, y: ndarray, h: ndarray, c: ndarray | None, batch: Batch,
        starts: ndarray | None = None, tables: Tables | None = None,
    ) -> None: ...  # fmt: skip
    def forward(
        self, layer: int, x: ndarray, y: ndarray, h: Any, c: Any, batch: Batch,
        tapes: list[ndarray | None], starts: ndarray | None = None,
        tables: Tables | None = None,
    ) -> None: ...  # fmt: skip
    def backward(
        self, layer: int, direction: int, first: int, x: ndarray, y: ndarray, tape: ndarray,
        h_0: ndarray, c_0: ndarray | None, batch: Batch, grad_y: ndarray, grad_h: ndarray,
        grad_c: ndarray | None, grad_x: ndarray, starts: ndarray | None = None,
        vectors: ndarray | None = None,
    ) -> dict[str, ndarray]: ...  # fmt: skip
    def step_row(
        self, ids: Any, version: Version, h: ndarray, c: ndarray | None, workspace: Workspace
    ) -> ndarray | None: ...
    def zero_state(self, rows: int, rank: int = 3) -> State: ...
    def is_input(self, x: Any) -> bool: ...
    def call(self, x: Any) -> Any: ...
    def step(
        self, x: Any, out: Any, h: ndarray, c: ndarray | None, workspace: Workspace
    ) -> ndarray | None: ...
