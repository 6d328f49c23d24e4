"""Times over the least possible on this machine, which is measured in the same run: 1 is best."""

import timeit

from . import limit
from .common import INFERENCE, THREADS, TRAINING, make_call, make_problem, use


def least_time(call, seconds=0.5):
    """The least time of a call, of those that fit in `seconds`."""
    timer = timeit.Timer(call)
    once = min(timer.repeat(3, 1))
    number = max(1, round(5e-4 / once))
    return min(timer.repeat(max(3, round(seconds / (number * once))), number)) / number


class TimeOverLimit:
    """The base of the two below."""

    param_names = ("shape", "threads")
    timeout = 300

    def setup_cache(self):
        from cylstm.core import kernels as _kernels

        isa = getattr(_kernels, "ISA", "baseline")
        return {n: limit.measure(isa, n) for n in THREADS if n <= len(limit.usable_cpus())}

    def setup(self, machines, shape, threads):
        use(threads)


class Inference(TimeOverLimit):
    params = [INFERENCE, THREADS]

    def track_time_over_limit(self, machines, shape, threads):
        taken = least_time(make_call(make_problem(shape)))
        return taken / limit.least_seconds(shape, machines[threads])

    track_time_over_limit.unit = "least possible times"


class Training(TimeOverLimit):
    params = [TRAINING, THREADS]

    def track_time_over_limit(self, machines, shape, threads):
        taken = least_time(make_call(make_problem(shape, training=True), training=True))
        return taken / limit.least_seconds(shape, machines[threads], training=True)

    track_time_over_limit.unit = "least possible times"
