"""Beside a thread that trains, whoever reads parameters sees those of a whole step."""

import copy
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cylstm
from cylstm.core.access import reading, writing
from cylstm.train import SGD, Adam, Embedding, Last, Linear, Sequential
from threads import threads_as_before

STEPS = 40


def as_copy(model):
    return pickle.loads(pickle.dumps(model))


def lstm():
    return cylstm.LSTM(192, 256, seed=0)


def stack():
    return Sequential(
        Embedding(50, 192, seed=0), cylstm.LSTM(192, 256, seed=1), Last(), Linear(256, 300, seed=2)
    )


def example(model):
    if isinstance(model, Sequential):
        return np.arange(6, dtype=np.int64).reshape(2, 3)
    return np.full((2, 1, 192), 0.1, np.float32)


def output(model):
    y = model(example(model))
    return y if isinstance(model, Sequential) else y[0]


def predicted(model):
    """As a job scores: one sequence, of which all results are of one moment."""
    first = example(model)[:, 0]
    return model.predict([first])[0]


def saved(model, folder):
    path = folder / f"{threading.get_ident()}.safetensors"
    model.save(path)
    return cylstm.load(path)


READERS = {
    "call": lambda model, folder: output(model),
    "forward": lambda model, folder: model.forward(example(model))[0],
    "state_dict": lambda model, folder: model.state_dict(),
    "save": lambda model, folder: saved(model, folder).state_dict(),
    "pickle": lambda model, folder: as_copy(model).state_dict(),
    "deepcopy": lambda model, folder: copy.deepcopy(model).state_dict(),
    "predict": lambda model, folder: predicted(model),
}


def digest(seen):
    if isinstance(seen, dict):
        return tuple(sorted((name, array.tobytes()) for name, array in seen.items()))
    return seen.tobytes()


def all_ones(model):
    return {name: np.ones_like(array) for name, array in model.named_parameters()}


@pytest.mark.parametrize("make", [lstm, stack])
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_beside_a_trainer(make, reader, tmp_path):
    look = READERS[reader]
    twin = make()
    grads, optimizer = all_ones(twin), SGD(twin, lr=0.01)
    whole = {digest(look(twin, tmp_path))}
    for _ in range(STEPS):
        optimizer.step(grads)
        whole.add(digest(look(twin, tmp_path)))
    assert len(whole) == STEPS + 1

    model = make()
    begun, seen, over = threading.Event(), [], threading.Event()

    def read():
        while not over.is_set():
            seen.append(digest(look(model, tmp_path)))
            begun.set()

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait()
    optimizer = SGD(model, lr=0.01)
    for _ in range(STEPS):
        optimizer.step(grads)
        time.sleep(0.001)
    over.set()
    thread.join()
    assert seen
    assert set(seen) <= whole


def test_readers_at_once_beside_a_trainer(tmp_path):
    """Of a model small enough for a sanitizer to follow; its calls have teams of threads."""
    model, rows = cylstm.LSTM(6, 40, num_layers=2, seed=0), np.ones((20, 16, 6), np.float32)
    readers = {
        "call": lambda model: model(rows)[0],
        "forward": lambda model: model.forward(rows)[0],
        "stream": lambda model: model.stream(16).step(rows[0]),
        "state_dict": lambda model: model.state_dict(),
        "save": lambda model: saved(model, tmp_path).state_dict(),
        "pickle": lambda model: as_copy(model).state_dict(),
        "deepcopy": lambda model: copy.deepcopy(model).state_dict(),
        "predict": lambda model: model.predict([rows[:, 0]] * 3)[1],
    }
    twin = as_copy(model)
    grads, optimizer = all_ones(twin), SGD(twin, lr=0.01)
    whole = {name: {digest(look(twin))} for name, look in readers.items()}
    for _ in range(STEPS):
        optimizer.step(grads)
        for name, look in readers.items():
            whole[name].add(digest(look(twin)))

    barrier, optimizer = threading.Barrier(len(readers) + 1), SGD(model, lr=0.01)

    def read(look):
        barrier.wait()
        return {digest(look(model)) for _ in range(STEPS // 2)}

    with threads_as_before(), ThreadPoolExecutor(len(readers)) as pool:
        cylstm.set_num_threads(2)
        seen = {name: pool.submit(read, look) for name, look in readers.items()}
        barrier.wait()
        for _ in range(STEPS):
            optimizer.step(grads)
            time.sleep(0.002)
    for name, found in seen.items():
        assert found.result() <= whole[name], name


@pytest.mark.parametrize("make", [lstm, stack])
def test_a_stream_beside_a_trainer(make):
    """Each step from zero is of a whole step of training."""
    model = make()
    grads, optimizer = all_ones(model), SGD(model, lr=0.01)
    x = np.array([3]) if make is stack else np.full((1, 192), 0.1, np.float32)
    twin = as_copy(model)
    stream, whole, trainer = twin.stream(), set(), SGD(twin, lr=0.01)
    for step in range(STEPS + 1):
        stream.reset()
        whole.add(digest(stream.step(x)))
        if step < STEPS:
            trainer.step(grads)
    over, seen = threading.Event(), []
    stream = model.stream()

    def read():
        while not over.is_set():
            stream.reset()
            seen.append(digest(stream.step(x)))

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(STEPS):
        optimizer.step(grads)
        time.sleep(0.001)
    over.set()
    thread.join()
    assert seen
    assert set(seen) <= whole


# Turns -------------------------------------------------------------------------------------------


class Store:
    """Counts the changes."""

    def __init__(self):
        self.changes = 0

    def begin_change(self):
        self.changes += 1

    def end_change(self):
        self.changes += 1


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_readers_come_together_and_a_writer_alone():
    store, order = Store(), []
    stores = frozenset({store})

    def write():
        with writing(stores):
            order.append("write")

    def read():
        with reading(stores):
            order.append("read")

    with reading(stores):
        reader = in_thread(read)
        reader.join(5)
        assert order == ["read"]
        writer = in_thread(write)
        writer.join(0.05)
        late = in_thread(read)  # comes after the writer, which waits
        late.join(0.05)
        assert order == ["read"]
        with reading(stores):  # but who reads already is let in
            pass
    writer.join(5)
    late.join(5)
    assert order == ["read", "write", "read"]
    assert store.changes == 2


def test_turns_are_in_order():
    """Who asks again and again does not keep out who waits."""
    stores, over = frozenset({Store()}), threading.Event()

    def write():
        while not over.is_set():
            with writing(stores):
                time.sleep(0.001)

    writers = [in_thread(write) for _ in range(2)]
    for _ in range(20):
        with reading(stores):
            pass
    over.set()
    for writer in writers:
        writer.join(5)
        assert not writer.is_alive()


def test_a_change_within_a_change_is_one():
    store = Store()
    with writing(frozenset({store})), writing(frozenset({store})), reading(frozenset({store})):
        assert store.changes == 1
    assert store.changes == 2


def test_a_reader_cannot_write():
    stores = frozenset({Store()})
    with reading(stores), pytest.raises(RuntimeError, match="cannot change"), writing(stores):
        pass
    with writing(stores):
        pass


def test_others_do_not_wait():
    one, other = frozenset({Store()}), frozenset({Store()})
    done = threading.Event()

    def write():
        with writing(other):
            done.set()

    with writing(one):
        in_thread(write).join(5)
    assert done.is_set()


def test_a_model_in_use_is_not_changed_by_its_own_layer():
    model = Sequential(Linear(2, 2, seed=0))

    class Changes(Linear):
        def run(self, x):
            with model.edit() as parameters:
                parameters["0.bias"] += 1
            return super().run(x)

    model._layers = (Changes(2, 2),)
    with pytest.raises(RuntimeError, match="cannot change"):
        model(np.zeros((1, 2), np.float32))


# Forks -------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def train_once(model):
    x = example(model)
    y, *_, tape = model.forward(x)
    grads = model.backward(tape, np.ones_like(y))[-1]
    Adam(model).step(grads)
    return digest(output(model)), model.state_dict()


def child(model, channel):
    try:
        digest(output(model))
        state = digest(model.state_dict())
        train_once(model)
        channel.put(state)
    except BaseException as error:
        channel.put(repr(error))


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("make", [lstm, stack])
def test_a_fork_amid_a_step(make):
    """The child has the weights of a whole step, and goes on."""
    model = make()
    grads, optimizer, over = all_ones(model), SGD(model, lr=0.01), threading.Event()
    twin = as_copy(model)
    trainer, whole = SGD(twin, lr=0.01), {digest(twin.state_dict())}

    def train():
        while not over.is_set():
            optimizer.step(grads)
            time.sleep(0.002)  # each is done again below

    thread = in_thread(train)
    context, found, near = multiprocessing.get_context("fork"), [], set()
    for _ in range(10):
        channel = context.SimpleQueue()
        process = context.Process(target=child, args=(model, channel))
        begun = optimizer.steps
        process.start()
        near.update(range(begun - 1, optimizer.steps + 1))  # how many were done at the fork
        found.append(channel.get())
        process.join()
    over.set()
    thread.join()
    for done in range(1, optimizer.steps + 1):
        trainer.step(grads)
        if done not in near:
            continue
        whole.add(digest(twin.state_dict()))
        if whole.issuperset(found):
            break
    assert [state for state in found if isinstance(state, str)] == []
    assert whole.issuperset(found)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_stream_forked_amid_a_step():
    """Its state is of no step, which the child is told until it sets another."""
    network = cylstm.LSTM(64, 64, seed=0)
    stream = network.stream()
    stream._workspace.begin()  # as another thread's step does
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b""
        try:
            stream.step(np.zeros(64, np.float32))
        except RuntimeError as error:
            said = str(error).encode()
        stream.reset()
        said += b"; " + str(stream.step(np.zeros(64, np.float32)).shape).encode()
        os.write(write, said)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1000).decode() == (
        "stream: the process was forked amid a step, so its state is of none; "
        "set it, or reset all of it; (64,)"
    )
    os.close(read)
    os.close(write)
    stream._workspace.end()
    stream.step(np.zeros(64, np.float32))
