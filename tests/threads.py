"""Threads in tests. Their number is the process's: a test that changes it puts it back."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cylstm


@contextmanager
def threads_as_before():
    before = cylstm.get_num_threads()
    try:
        yield
    finally:
        cylstm.set_num_threads(before)


def at_once(work, count):
    """What work(0), work(1) and so on give, which begin together in threads of their own.

    Where there is a GIL it goes from thread to thread as often as it can.
    """
    begin, before = threading.Barrier(count), sys.getswitchinterval()

    def run(k):
        begin.wait(60)
        return work(k)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(before)
