"""How much memory a piece of work takes."""

import tracemalloc


def traced_peak(work):
    """The most memory that NumPy held at once: whatever ran before, unlike that of the process."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
