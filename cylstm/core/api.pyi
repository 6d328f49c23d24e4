from typing import Any

table: Any
