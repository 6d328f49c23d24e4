"""The process's threads: how many a call may use, and how many are worth it. See src/team.h."""

import os

cylstm_begin()

cdef enum:
    ENOUGH = 250_000    # multiply-adds that are worth another thread
    MOST_FOR_A_CPU = 4  # threads

cdef extern from * nogil:
    """
    #ifdef _OPENMP
    #include <omp.h>
    static int openmp_threads(void) { return omp_get_max_threads(); }
    static int openmp_cpus(void) { return omp_get_num_procs(); }
    #else
    static int openmp_threads(void) { return 0; }
    static int openmp_cpus(void) { return 0; }
    #endif
    #include <stdatomic.h>
    static _Thread_local int cylstm_most_here;  /* threads of a call from this thread; 0: any */
    static atomic_int cylstm_chosen;            /* by set_num_threads; 0 for none */
    static inline int chosen(void) {
        return atomic_load_explicit(&cylstm_chosen, memory_order_relaxed);
    }
    static void choose(int most) { atomic_store(&cylstm_chosen, most); }
    """
    int openmp_threads()  # how many it would use; 0 where this was built without it,
    int openmp_cpus()     # and on how many CPUs
    int cylstm_most_here
    int chosen()
    void choose(int most)


def set_num_threads(n):
    """Set how many threads a call may use, for the whole process.

    Parameters
    ----------
    n : int
        From 1 up.

    Notes
    -----
    Until then it is what OpenMP would use: ``OMP_NUM_THREADS`` and the process's CPU affinity
    count, and in builds with OpenMP (GCC's on Linux) threadpoolctl's limits. A call too small to
    gain from threads uses one; calls at once share as many.
    """
    from cylstm.checks import whole

    choose(whole("n", n, 1))


def get_num_threads():
    """How many threads a call may use; see `set_num_threads`."""
    return _num_threads()


def where_threads_come_from():
    """What `get_num_threads` was decided by, in words."""
    cdef int by_openmp = openmp_threads() or _OWN
    most = chosen() or min(by_openmp, _QUOTA)
    if cylstm_most_here and cylstm_most_here < most:
        return "a limit of this thread"
    if chosen():
        return "set_num_threads"
    if _QUOTA < by_openmp:
        return "the control group's CPU quota"
    return "OMP_NUM_THREADS" if os.environ.get("OMP_NUM_THREADS") else "OpenMP: the CPUs to be used"


def limit_threads_here(n):
    """Set how many threads a call from this thread may use, if not fewer; 0 for any number.

    For code that divides its work among threads of its own; other threads' calls are as before.
    """
    global cylstm_most_here
    cylstm_most_here = n


cdef int _num_threads() noexcept nogil:
    cdef int most = chosen() or min(openmp_threads() or _OWN, _QUOTA)
    return min(most, cylstm_most_here) if cylstm_most_here else most


cdef int useful_threads(double total) noexcept nogil:
    """As many as the work is worth; far more than there are CPUs would only wait for each other."""
    cdef int threads
    if total < 2 * ENOUGH:
        return 1
    threads = _num_threads()
    if threads > MOST_FOR_A_CPU:  # else no need to ask the system, which takes longer than a step
        threads = min(threads, MOST_FOR_A_CPU * (openmp_cpus() or _CPUS))
    return max(1, <int> min(<double> threads, total / ENOUGH))


def _quota():
    """The whole CPUs that this process's control group may use, as Linux tells (cgroup v2, v1)."""
    for name, period in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            with open(f"/sys/fs/cgroup/{name}") as file:
                quota = file.read().split()
            if period is not None:
                with open(f"/sys/fs/cgroup/{period}") as file:
                    quota += file.read().split()
            if int(quota[0]) > 0:
                return max(1, int(quota[0]) // int(quota[1]))
        except (OSError, ValueError, IndexError):
            continue
    return 2**31 - 1


def cpus():
    """How many CPUs this process may run on now."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on Linux
        return os.cpu_count() or 1


def threads_wanted(variable, otherwise):
    """What ``OMP_NUM_THREADS`` says: a number, or one for each level of nesting."""
    try:
        wanted = int((variable or "").split(",")[0])
    except ValueError:
        return otherwise
    return wanted if 0 < wanted < 2**31 else otherwise


cdef int _QUOTA = _quota()
cdef int _CPUS = cpus()
cdef int _OWN = threads_wanted(os.environ.get("OMP_NUM_THREADS"), _CPUS)  # as OpenMP would say


cdef void meet(int most, member_work work, void *arg) noexcept nogil:
    cylstm_meet(most, work, arg)


cdef void share(int most, int units, sameness are, unit_work work, void *arg) noexcept nogil:
    cylstm_share(most, units, are, work, arg)


cdef int best_units(int threads) noexcept nogil:
    return cylstm_units(threads)


cdef void wait_for_team(barrier *b, int size) noexcept nogil:
    cylstm_wait(b, size)


cdef void advance(progress *p, int done) noexcept nogil:
    cylstm_advance(p, done)


cdef void await_progress(progress *p, int least) noexcept nogil:
    cylstm_await(p, least)
