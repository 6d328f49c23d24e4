"""Many threads that use one thing at once: with the GIL, and on a Python that is free of it."""

import copy
import itertools
import multiprocessing
import os
import subprocess
import sys
import sysconfig
import threading

import numpy as np
import pytest

import cylstm
from cylstm.core import lookup
from cylstm.core.workspace import Workspace
from cylstm.layers import Embedding, Last, Linear, MeanPool, Sequential
from cylstm.train import SGD, Adam
from reference import assert_same_bits
from threads import at_once, threads_as_before
from traced import traced_peak

THREADS = 8
IN_USE = "in use by another thread"
MAKERS = {
    "LSTM": lambda seed: cylstm.LSTM(24, 40, num_layers=2, peephole=True, seed=seed),
    "projected": lambda seed: cylstm.LSTM(24, 40, proj_size=16, dtype="float64", seed=seed),
    "GRU": lambda seed: cylstm.GRU(24, 40, bidirectional=True, seed=seed),
    "layers": lambda seed: Sequential(
        Linear(24, 33, seed=seed), cylstm.LSTM(33, 40, seed=seed), Linear(40, 70, seed=seed)
    ),
}
EACH_MODEL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def input_of(rng, model, steps=5, size=3):
    return rng.standard_normal((steps, size, 24)).astype(getattr(model, "dtype", "float32"))


def output(model, x):
    y = model(x)
    return y[0] if isinstance(y, tuple) else y


def gradients(model, x):
    """By the input and by each parameter."""
    y, *_, tape = model.forward(x)
    found = model.backward(tape, np.ones_like(y))
    return {**found[-1], "x": found[0]}


def unless(reason, work, *given):
    """What work returns; None where it is refused for this reason."""
    try:
        return work(*given)
    except (RuntimeError, ValueError) as error:
        if reason not in str(error):
            raise
        return None


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


@EACH_MODEL
def test_the_first_calls_come_at_once(make, rng):
    """Each finds weights that nobody has packed yet, or that another packs meanwhile."""
    first = make(0)
    x = input_of(rng, first)
    y, grads = output(first, x), gradients(first, x)
    for _ in range(10):
        model = make(0)
        found = at_once(lambda k, m=model: output(m, x) if k % 2 else gradients(m, x), THREADS)
        for k, one in enumerate(found):
            assert_same({"y": one} if k % 2 else one, {"y": y} if k % 2 else grads)


WORDS = 200
OF_WORDS = {
    "LSTM": lambda: Sequential(Embedding(WORDS, 24, seed=0), cylstm.LSTM(24, 40, seed=1)),
    "both": lambda: Sequential(
        Embedding(WORDS, 24, seed=0), cylstm.LSTM(24, 20, bidirectional=True, seed=1)
    ),
    "int8": lambda: OF_WORDS["LSTM"]().quantize("int8"),
    "labels": lambda: Sequential(*OF_WORDS["LSTM"](), Linear(40, 7, seed=2)),
}


@pytest.mark.parametrize("make", OF_WORDS.values(), ids=OF_WORDS)
def test_the_first_words_come_at_once(make, rng):
    """Rows of a table that no thread has made yet, that another makes, and that all read."""
    batches = [rng.integers(0, WORDS, (6, 5)) for _ in range(THREADS)]
    expected = [output(make(), batch).tobytes() for batch in batches]
    for _ in range(20):
        model = make()
        for k, found in enumerate(at_once(lambda k, m=model: calls(m, batches, k), THREADS)):
            assert found == expected[k:] + expected[:k]


def calls(model, batches, first):
    """All batches, from one of them on."""
    return [output(model, batch).tobytes() for batch in batches[first:] + batches[:first]]


@pytest.mark.parametrize("make", [OF_WORDS["LSTM"], OF_WORDS["int8"], OF_WORDS["labels"]])
def test_streams_of_words_begin_at_once(make, rng):
    words = rng.integers(0, WORDS, (THREADS, 30, 3))

    def steps(model, own):
        stream = model.stream(3)
        return [stream.step(step).tobytes() for step in own]

    expected = [steps(make(), own) for own in words]
    for _ in range(10):
        model = make()
        assert at_once(lambda k, m=model: steps(m, words[k]), THREADS) == expected


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_while_rows_are_put():
    """It does not wait for a thread that it has not."""
    ids = np.arange(WORDS)[:, None]
    expected = output(OF_WORDS["LSTM"](), ids)
    model, context = OF_WORDS["LSTM"](), multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(output(model, ids)))
    with lookup._put:
        child.start()
    theirs.close()
    try:
        assert ours.poll(60), "the child hangs"
        assert np.array_equal(ours.recv(), expected)
    finally:
        child.kill()
        child.join()


@EACH_MODEL
def test_parameters_change_amid_calls(make, rng):
    """Whoever packs them anew spoils nobody's copy: each answer is of one of the states."""
    model, others = make(0), [make(seed) for seed in range(1, 4)]
    x = input_of(rng, model)
    states = [other.state_dict() for other in others]
    model.load_state_dict(states[0])
    possible = {output(other, x).tobytes() for other in others}

    def work(k):
        found = set()
        for n in range(60):
            if k < 2:
                model.load_state_dict(states[(n + k) % 3])
            else:
                found.add(output(model, x).tobytes())
        return found

    for found in at_once(work, THREADS):
        assert found <= possible
    model.load_state_dict(states[0])
    assert np.array_equal(output(model, x), output(others[0], x))
    assert_same(gradients(model, x), gradients(others[0], x))


@EACH_MODEL
def test_gradients_are_of_one_moment(make, rng):
    """A tape is older than a change, which is said, or its gradients are those of its weights."""
    model, others = make(0), [make(seed) for seed in range(1, 4)]
    x = input_of(rng, model)
    states = [other.state_dict() for other in others]
    possible = [gradients(other, x) for other in (make(0), *others)]

    def work(k):
        found, refused = [], 0
        for n in range(30):
            if k == 0:
                model.load_state_dict(states[n % 3])
                continue
            one = unless("the parameters have changed since forward", gradients, model, x)
            if one is None:
                refused += 1
            else:
                found.append(one)
        assert k == 0 or len(found) + refused == 30
        return found

    for one in itertools.chain.from_iterable(at_once(work, THREADS)):
        assert any(
            all(np.array_equal(one[name], right[name]) for name in right) for right in possible
        )


def test_packed_weights_keep_their_memory(rng):
    """Changed ones are packed again where they were."""
    lstm = cylstm.LSTM(256, 512, seed=0)  # 6 MB
    state, x = lstm.state_dict(), np.zeros((1, 1, 256), np.float32)
    packed = sum(array.nbytes for array in state.values())
    lstm(x)
    lstm.load_state_dict(state)
    assert traced_peak(lambda: lstm(x)) < packed / 4
    model = lstm.stream()
    model.step(x[0])
    lstm.load_state_dict(state)
    assert traced_peak(lambda: model.step(x[0])) < packed / 4


def test_one_user_at_a_time():
    """Of the mark that refuses a second."""
    workspace, inside = Workspace(), []

    def enter(k):
        with workspace:
            inside.append(k)
            count = len(inside)
            inside.remove(k)
        return count

    found = at_once(lambda k: [unless(IN_USE, enter, k) for _ in range(2000)], THREADS)
    assert 1 in set(itertools.chain.from_iterable(found)) <= {1, None}


def streams():
    """Of models whose parts keep states of their own."""
    two = Sequential(cylstm.LSTM(24, 40, seed=0), Linear(40, 16), cylstm.LSTM(16, 8, seed=1))
    return {
        "LSTM": cylstm.LSTM(24, 40, 2, seed=0),
        "layers": two,
        "nested": Sequential(two, cylstm.GRU(8, 8, seed=0), Last()),
        "mean": Sequential(cylstm.LSTM(24, 8, seed=0), MeanPool()),
        "pool": MeanPool(),
    }


@pytest.mark.parametrize("name", streams())
def test_one_stream_of_many_threads(name):
    """Those steps that are taken are whole: all parts have seen the same ones, in one order."""
    model, x = streams()[name], np.ones((2, 24), np.float32)
    alone = model.stream(2)
    expected = [alone.step(x).tobytes() for _ in range(2 * THREADS)]
    for _ in range(20):
        stream, again = model.stream(2), model.stream(2)
        done = at_once(
            lambda k, s=stream: [unless(IN_USE, s.step, x), unless(IN_USE, s.step, x)], THREADS
        )
        taken = [y.tobytes() for pair in done for y in pair if y is not None]
        assert sorted(taken) == sorted(expected[: len(taken)])
        for _ in taken:
            again.step(x)
        assert np.array_equal(copy.copy(stream).step(3 * x), again.step(3 * x))


def test_a_streams_state_is_of_one_moment():
    """Read, set and reset amid steps: never a half of two."""
    lstm, x = cylstm.LSTM(8, 32, seed=0), np.zeros((1, 8), np.float32)
    stream = lstm.stream()
    marks = [np.full((1, 1, 32), float(k), np.float32) for k in range(THREADS)]

    def work(k):
        for _ in range(200):
            if k == 0:
                unless(IN_USE, stream.step, x)
            elif k == 1:
                unless(IN_USE, stream.reset)
            elif k < 4:
                unless(IN_USE, setattr, stream, "state", (marks[k], marks[k]))
            else:
                state = unless(IN_USE, getattr, stream, "state")
                if state is not None and (state[0] == np.round(state[0])).all():
                    h, c = state  # nobody has stepped since it was set: all numbers are one
                    assert len(set(h.ravel()) | set(c.ravel())) == 1

    at_once(work, THREADS)
    stream.reset()
    assert_same_bits(stream.step(x), lstm.stream().step(x))


def test_a_pool_of_many_threads(rng):
    lstm = cylstm.LSTM(24, 40, 2, seed=0)
    pool = cylstm.StreamPool(lstm, 4 * THREADS)
    x = rng.standard_normal((30, 4 * THREADS, 24)).astype(np.float32)

    def work(k):
        found, order = [], np.random.default_rng(k)
        for step in x:
            rows = 4 * k + order.permutation(4)[: order.integers(1, 5)]
            found.append((rows, pool.step(rows, step[rows])))
        return found

    for k, found in enumerate(at_once(work, THREADS)):
        own = {row: lstm.stream() for row in range(4 * k, 4 * k + 4)}
        for (rows, y), step in zip(found, x, strict=True):
            for row, one in zip(rows, y, strict=True):
                assert np.array_equal(own[row].step(step[row]), one)


@pytest.mark.parametrize("make_optimizer", [Adam, lambda model: SGD(model, 0.01, momentum=0.9)])
@EACH_MODEL
def test_an_optimizer_of_many_threads(make, make_optimizer, rng):
    """Their steps come one after the other; none is lost."""
    model, alone = make(0), make(0)
    x = input_of(rng, model)
    optimizer, other = make_optimizer(model), make_optimizer(alone)
    grads = gradients(model, x)
    del grads["x"]
    for _ in range(THREADS * 20):
        other.step(grads)
    at_once(lambda k: [optimizer.step(grads) for _ in range(20)], THREADS)
    assert optimizer.steps == THREADS * 20
    assert_same(model.state_dict(), alone.state_dict())
    assert_same(optimizer.state_dict(), other.state_dict())
    assert np.array_equal(output(model, x), output(alone, x))


@EACH_MODEL
def test_serving_while_training(make, rng):
    """Each answer is of the parameters after some whole step."""
    model, again = make(0), make(0)
    x = input_of(rng, model)
    optimizer, states, ended = Adam(model, lr=1e-2), [model.state_dict()], threading.Event()

    def work(k):
        found = []
        if k == 0:
            for _ in range(25):
                grads = gradients(model, x)
                del grads["x"]
                optimizer.step(grads)
                states.append(model.state_dict())
            ended.set()
        while k and not ended.is_set():
            found.append(output(model, x).tobytes())
        return found

    answers = at_once(work, 4)
    possible = set()
    for state in states:
        again.load_state_dict(state)
        possible.add(output(again, x).tobytes())
    assert set(itertools.chain.from_iterable(answers)) <= possible


def test_the_number_of_threads_changes_amid_calls(rng):
    lstm = cylstm.LSTM(64, 128, 2, bidirectional=True, seed=0)
    x = rng.standard_normal((20, 12, 64)).astype(np.float32)
    expected = lstm(x)

    def work(k):
        for n in range(10):
            cylstm.set_num_threads(1 + (n + k) % 3)
            assert_same_bits(lstm(x), expected)

    with threads_as_before():
        at_once(work, THREADS)


@pytest.fixture
def run_apart(tmp_path):
    """Run code in a process that has imported nothing; what it printed."""

    def run(code, **variables):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env={name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
            | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


AT_ONCE = """
import threading
def at_once(work, count=8):
    begin, errors = threading.Barrier(count), []
    def run(k):
        begin.wait(60)
        try:
            work(k)
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not errors, errors
"""


def test_names_are_imported_at_once(run_apart):
    """Those that come when they are first used."""
    code = """
import cylstm
optional = {"compare", "score", "Scorer"}
names = [name for name in cylstm.__all__ if name not in optional]
at_once(lambda k: [getattr(cylstm, name) for name in names[k:] + names[:k]])
print(cylstm.StreamPool is cylstm.pool.StreamPool, cylstm.layers.Linear.__name__)
"""
    assert run_apart(AT_ONCE + code) == "True Linear\n"


def test_blas_is_imported_at_once(run_apart):
    """With BLAS's products, by the first that has a use for them."""
    code = """
import numpy as np, cylstm
x = np.ones((3, 2, 4))
found = []
at_once(lambda k: found.append(cylstm.LSTM(4, 5, dtype="float64", seed=0)(x)[0].tobytes()))
print(len(set(found)), len(found))
"""
    assert run_apart(AT_ONCE + code, CYLSTM_PRODUCT="blas") == "1 8\n"


FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


@pytest.mark.skipif(not FREE, reason="of a free-threaded Python")
def test_no_module_turns_the_gil_on(run_apart):
    """Python warns where one does, too."""
    code = """
import importlib, pkgutil, sys, cylstm, cylstm.core
for module in pkgutil.iter_modules(cylstm.core.__path__):
    importlib.import_module("cylstm.core." + module.name)
print(sys._is_gil_enabled())
"""
    assert run_apart(code) == "False\n"
