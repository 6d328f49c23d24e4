"""What a service relies on: threads, processes, memory, and errors that leave no trace."""

import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cylstm
from cylstm.train import Adam
from reference import assert_same_bits, flat, random_case
from threads import threads_as_before
from traced import traced_peak

THREADS = 8


@pytest.fixture
def two_threads():
    with threads_as_before():
        cylstm.set_num_threads(2)
        yield


def infer(case):
    return case.lstm(*case.inputs)


def train(case):
    return case.gradients()


def stream(case):
    own = case.lstm.stream(case.x.shape[1])
    return own.step(case.x), own.state


@pytest.mark.parametrize("work", [infer, train, stream])
def test_threads_share_one_lstm(rng, dtype, work):
    sizes = {"input_size": 20, "hidden_size": 30, "num_layers": 2, "dtype": dtype}
    cases = [random_case(rng, 20, batch, **sizes) for batch in range(1, THREADS + 1)]
    for case in cases[1:]:
        case.lstm = cases[0].lstm
    expected = [work(case) for case in cases]
    with ThreadPoolExecutor(THREADS) as pool:
        rounds = [list(pool.map(work, cases)) for _ in range(30)]
    for results in rounds:
        for actual, alone in zip(results, expected, strict=True):
            assert_same_bits(actual, alone)


@pytest.mark.parametrize("threads", [2, 7])
def test_callers_share_teams(rng, threads):
    """Of teams whose members take tasks, or meet; more threads than CPUs, too."""
    wide = {"input_size": 100, "hidden_size": 200, "dtype": "float32"}
    cases = [random_case(rng, 30, batch, **wide) for batch in (1, 2, 9, 40)]
    with threads_as_before():
        cylstm.set_num_threads(1)
        expected = [(infer(case), train(case)) for case in cases]
        cylstm.set_num_threads(threads)
        with ThreadPoolExecutor(len(cases)) as pool:
            for _ in range(20):
                results = pool.map(lambda case: (infer(case), train(case)), cases)
                assert_same_bits(list(results), expected)


def answer(connection, case):
    connection.send((infer(case), train(case)))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_child(rng):
    case = random_case(rng, 50, 16, input_size=64, hidden_size=128, bidirectional=True)
    expected = infer(case), train(case)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=answer, args=(theirs, case))
    child.start()
    theirs.close()
    try:
        assert ours.poll(60), "the child hangs"
        assert_same_bits(ours.recv(), expected)
    finally:
        child.kill()
        child.join()
    assert_same_bits((infer(case), train(case)), expected)


def fail(case):
    with pytest.raises(ValueError, match="lengths"):
        case.lstm(*case.inputs[:2], lengths=[99] * case.x.shape[1])


def edit(case):
    with case.lstm.edit() as parameters:
        parameters["bias_l0"] += 1


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("work", [infer, train, stream, fail, edit])
def test_memory_does_not_grow(rng, work):
    case = random_case(rng, 2, 2, num_layers=2, bidirectional=work is not stream)
    grown = []
    for _ in range(6):  # the first warms up
        before = resident_bytes()
        for _ in range(4000):
            work(case)
        grown.append(resident_bytes() - before)
    # What is lost at each call is lost in each round: 50 bytes a call would be seen. A round alone
    # may grow, since Python takes memory for small objects by the MiB.
    assert min(grown[1:]) < 200_000


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads /proc")
def test_large_results_are_freed(rng):
    case = random_case(rng, 500, 20, hidden_size=50)
    for _ in range(2):  # the C library learns from the first to keep what is freed, for the next
        infer(case), train(case)
    tracemalloc.start()  # of what NumPy holds; one result alone is 4 MB
    try:
        infer(case), train(case)
        held, resident = tracemalloc.get_traced_memory()[0], resident_bytes()
        for _ in range(50):
            infer(case), train(case)
        assert tracemalloc.get_traced_memory()[0] - held < 1_000_000
    finally:
        tracemalloc.stop()
    # What the kernels take, too. How much of it the C library keeps for the next call depends on
    # how many threads a call found free, which on a loaded machine changes from call to call: some
    # results' size, once. 50 calls that each leave something would leave 200 MB.
    assert resident_bytes() - resident < 50_000_000


def test_gates_of_a_segment_alone_are_kept():
    lstm, x = cylstm.LSTM(1, 32, seed=0), np.zeros((100_000, 1, 1), np.float32)

    def train(segment):
        y, _, tape = lstm.forward(x, segment=segment)
        lstm.backward(tape, y)

    # The gates alone are 77 MB; y and its copy are 26.
    assert traced_peak(lambda: train(None)) > 100_000_000
    assert traced_peak(lambda: train(1000)) < 35_000_000


def test_errors_leave_everything_as_it_was(rng):
    case = random_case(rng, 5, 3)
    expected = infer(case), train(case), case.lstm.state_dict()
    out = np.full_like(case.grad_y, 7)
    _, _, tape = case.lstm.forward(*case.inputs)
    bad = case.grad_y[1:]

    with pytest.raises(ValueError, match="lengths"):
        case.lstm(*case.inputs[:2], lengths=[9, 9, 9], out=out)
    with pytest.raises(ValueError, match="grad_y"):
        case.lstm.backward(tape, bad)
    with pytest.raises(ValueError, match="weight_hh_l0"):
        case.lstm.weight_hh_l0 = bad

    assert (out == 7).all()
    assert_same_bits((infer(case), train(case), case.lstm.state_dict()), expected)
    assert_same_bits(flat(case.lstm.backward(tape, case.grad_y, case.grad_state)), expected[1])


def test_parameters_assigned_while_others_run(rng):
    """A call under way keeps the parameters that it began with."""
    lstm, *others = (cylstm.LSTM(64, 256, 2, peephole=True, seed=seed) for seed in range(3))
    x = rng.standard_normal((300, 1, 64)).astype(np.float32)
    states = [other.state_dict() for other in others]
    possible = [each(x)[0].tobytes() for each in (lstm, *others)]
    with ThreadPoolExecutor(2) as pool:
        for k in range(20):
            running = pool.submit(lstm, x)
            lstm.load_state_dict(states[k % 2])
            assert running.result()[0].tobytes() in possible
    assert_same_bits(lstm(x), others[1](x))


def test_a_call_keeps_its_packed_weights(rng):
    """Not even memory is shared between those that it has and those that are packed meanwhile."""
    lstm, *others = (cylstm.LSTM(64, 256, peephole=True, seed=seed) for seed in range(3))
    x = rng.standard_normal((400, 1, 64)).astype(np.float32)
    states = [other.state_dict() for other in others]
    expected = [other(x)[0] for other in others]
    with ThreadPoolExecutor(2) as pool:
        for k in range(30):
            lstm.load_state_dict(states[k % 2])
            running = [pool.submit(lstm, x) for _ in range(2)]
            lstm.load_state_dict(states[1 - k % 2])
            lstm(x[:1])
            for y, _ in (future.result() for future in running):
                assert any((y == right).all() for right in expected)


def test_calls_while_another_thread_trains(rng):
    """Each call is of the parameters as they were after some whole step or assignment."""
    trained, again = (cylstm.LSTM(64, 192, 2, seed=0) for _ in range(2))
    x = rng.standard_normal((30, 1, 64)).astype(np.float32)
    states, outputs = [trained.state_dict()], [trained(x)[0]]
    adam, ended = Adam(trained, lr=1e-2), threading.Event()

    def serve():
        while not ended.is_set():
            outputs.append(trained(x)[0])

    with ThreadPoolExecutor(2) as pool:
        serving = [pool.submit(serve) for _ in range(2)]
        for step in range(40):
            y, _, tape = trained.forward(x)
            adam.step(trained.backward(tape, y)[2])
            states.append(trained.state_dict())
            if step % 8 == 7:
                trained.load_state_dict(states[step // 2])
        ended.set()
        for future in serving:
            future.result()
    expected = set()
    for state in states:
        again.load_state_dict(state)
        expected.add(again(x)[0].tobytes())
    assert {y.tobytes() for y in outputs} <= expected


def test_stream_of_no_sequences():
    assert cylstm.LSTM(3, 4).stream(0).step(np.zeros((0, 3), np.float32)).shape == (0, 4)


COUNTED = """
#include <stddef.h>
long allocations;
void *__libc_memalign(size_t, size_t);
int posix_memalign(void **memory, size_t alignment, size_t size) {
    allocations++;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : 12;
}
"""
STEPS = """
import ctypes
import numpy as np
import cylstm

allocations = ctypes.c_long.in_dll(ctypes.CDLL(None), "allocations")
lstm = cylstm.LSTM(8, 300, num_layers=2, proj_size=5, seed=0)
stream, x, y = lstm.stream(7), np.ones((7, 8), np.float32), np.empty((7, 5), np.float32)
stream.step(x, out=y)
before = allocations.value
assert before > 0
for _ in range(100):
    stream.step(x, out=y)
print(allocations.value - before)
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="preloads a library")
def test_a_stream_allocates_once(tmp_path):
    library = tmp_path / "counted.so"
    (tmp_path / "counted.c").write_text(COUNTED)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "counted.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-I", "-c", STEPS],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"


def test_two_threads_in_one_stream_do_no_harm():
    """One that comes amid another's step is refused; those that are taken are whole steps."""
    lstm = cylstm.LSTM(200, 300, seed=0)
    stream, x = lstm.stream(3), np.ones((3, 200), np.float32)
    with ThreadPoolExecutor(THREADS) as pool:
        taken = sum(pool.map(lambda _: is_taken(stream, x), range(300)))
    again = lstm.stream(3)
    for _ in range(taken):
        again.step(x)
    assert 0 < taken <= 300
    assert_same_bits(stream.state, again.state)


def is_taken(stream, x):
    try:
        stream.step(x)
    except RuntimeError:
        return False
    return True
