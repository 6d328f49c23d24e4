from typing import Final

from numpy import ndarray

ISAS: Final[tuple[str, ...]]
ISA: Final[str]
PRODUCT: Final[str]

def built_with() -> dict[str, str]: ...
def activate(spec: tuple[str, float, float], x: ndarray, isa: str | None = None) -> ndarray: ...
