"""What is to be done around a fork, where the system has forks."""

import os
from collections.abc import Callable

__all__ = ["at_fork"]


def at_fork(**handlers: Callable[[], None]) -> None:
    """Call these around each fork: ``before``, ``after_in_parent``, ``after_in_child``."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**handlers)
