"""The number of threads is the process's: a test that changes it puts it back."""

from contextlib import contextmanager

import cylstm


@contextmanager
def threads_as_before():
    before = cylstm.get_num_threads()
    try:
        yield
    finally:
        cylstm.set_num_threads(before)
