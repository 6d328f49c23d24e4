"""What becomes of a file that is written, whoever writes it: a model, a run, an ONNX model."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import cylstm
from cylstm.io import locks, writing
from cylstm.io.files import is_path
from cylstm.io.safetensors import read, write
from cylstm.train import SGD, Last, Linear, Sequential, fit, mse_loss

resource = pytest.importorskip("resource")  # these are POSIX's files, modes and limits
ROOT = os.geteuid() == 0


def save_run(path):
    model, x = Linear(1, 1, seed=0), np.ones((4, 1), np.float32)
    epochs = (
        2 if is_path(path) and os.path.isfile(path) else 1
    )  # one more than the run that is there
    fit(model, (x, x), mse_loss, SGD(model), epochs=epochs, checkpoint=path)


def save_onnx(path):
    pytest.importorskip("onnx")
    cylstm.LSTM(1, 2, seed=0).to_onnx(path)


WRITERS = {
    "tensors": lambda path: write(path, {"a": np.ones(3)}, {}),
    "lstm": lambda path: cylstm.LSTM(1, 2, seed=0).save(path),
    "sequential": lambda path: Sequential(Last(), Linear(1, 1, seed=0)).save(path),
    "run": save_run,
    "onnx": save_onnx,
}


@pytest.fixture(params=WRITERS.values(), ids=WRITERS.keys())
def save(request):
    return request.param


@pytest.fixture
def before(save, tmp_path):
    """A file that the writer has written: a run goes on from its own, and writes it anew."""
    path = tmp_path / "before"
    save(path)
    return path


def inode(path):
    return path.stat().st_ino


# Links, and what is no file ----------------------------------------------------------------------


@pytest.mark.parametrize("chain", [1, 2])
def test_links_are_followed(save, before, tmp_path, chain):
    folder, first = tmp_path / "elsewhere", inode(before)
    folder.mkdir()
    target, links = folder / "target", [folder / f"link{i}" for i in range(chain)]
    before.rename(target)
    for link, to in zip(links, ["target", *[link.name for link in links]], strict=False):
        link.symlink_to(to)  # from its own folder
    (tmp_path / "link").symlink_to(links[-1])
    save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert all(link.is_symlink() for link in links)
    assert target.stat().st_size > 0
    assert inode(target) != first
    assert not target.is_symlink()
    assert sorted(os.listdir(folder)) == sorted(["target", *(link.name for link in links)])


def test_a_link_to_what_is_not_there_yet_makes_it(save, tmp_path):
    (tmp_path / "link").symlink_to("target")
    save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").is_file()


def test_links_in_a_circle(save, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"symbolic links.*a'"):
        save(tmp_path / "a")


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.getcwd()
        os.chdir(path.parent)  # the name of a socket must be short
        try:
            bound.bind(path.name)
        finally:
            os.chdir(before)


def make_device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # /dev/null
    except PermissionError:
        path.symlink_to("/dev/null")


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkdir, "a directory"),
        (os.mkfifo, "a FIFO"),
        (make_socket, "a socket"),
        (make_device, "a device"),
    ],
)
def test_what_is_no_plain_file_is_refused_and_stays(save, tmp_path, make, what, linked):
    path = tmp_path / "odd"
    make(path)
    kind = stat.S_IFMT(path.stat().st_mode)
    if linked:
        path = tmp_path / "link"
        path.symlink_to("odd")
    with pytest.raises(OSError, match=f"expected a plain file, got {what}: .*{path.name}'"):
        save(path)
    assert stat.S_IFMT((tmp_path / "odd").stat().st_mode) == kind
    assert sorted(os.listdir(tmp_path)) == (["link", "odd"] if linked else ["odd"])


def test_a_fifo_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="fifo: expected a plain file"):
        cylstm.load(tmp_path / "fifo")


@pytest.mark.parametrize("path", ["", "folder/", "a\0b", "\ud800"])
def test_what_names_no_file(save, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"(path|checkpoint): expected the name of a file, got '"):
        save(path)
    assert os.listdir() == []


@pytest.mark.parametrize("path", [5, 1.0, ["a"], True])
def test_what_is_no_path(save, path):
    with pytest.raises(TypeError, match=r"(path|checkpoint): expected the name of a file, got"):
        save(path)
    with pytest.raises(TypeError, match="path: expected the name of a file, got"):
        cylstm.load(path)


def test_folders_that_are_none(save, tmp_path):
    (tmp_path / "file").touch()
    for path, error in (
        (tmp_path / "missing" / "model", FileNotFoundError),
        (tmp_path / "file" / "model", NotADirectoryError),
        (tmp_path / ("long" * 100), OSError),
    ):
        with pytest.raises(error) as caught:
            save(path)
        assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_may_be_as_long_as_the_system_lets_it(save, tmp_path):
    save(tmp_path / ("a" * 255))
    save(os.fsencode(tmp_path / "bytes"))
    assert (tmp_path / "bytes").is_file()


# Modes and owners --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777])
def test_a_file_that_is_replaced_leaves_its_mode(save, before, mode):
    before.chmod(mode)
    first = inode(before)
    save(before)
    assert inode(before) != first
    assert stat.S_IMODE(before.stat().st_mode) == mode


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_mask_lets_it(save, tmp_path, mask, mode):
    mask = os.umask(mask)
    try:
        save(tmp_path / "new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
def test_a_file_that_is_replaced_leaves_its_owner(save, before):
    os.chown(before, 1234, 4321)
    save(before)
    assert (before.stat().st_uid, before.stat().st_gid) == (1234, 4321)


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
@pytest.mark.parametrize(("mode", "left"), [(0o660, 0o600), (0o664, 0o644), (0o644, 0o644)])
def test_another_group_gets_no_more_than_all_others(save, before, monkeypatch, mode, left):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "not allowed")

    first = inode(before)
    os.chown(before, -1, 4321)
    before.chmod(mode)
    monkeypatch.setattr(os, "fchown", refuse)
    save(before)
    assert inode(before) != first
    assert stat.S_IMODE(before.stat().st_mode) == left


@pytest.mark.skipif(ROOT, reason="root may write to any file")
def test_a_file_that_may_not_be_written_stays(save, before):
    before.chmod(0o444)
    first = inode(before)
    with pytest.raises(PermissionError) as caught:
        save(before)
    assert caught.value.filename == str(before)
    assert inode(before) == first


# Failures ----------------------------------------------------------------------------------------


@contextmanager
def small_files():
    """No file may grow beyond 100 bytes, as on a full disk: not even what pytest writes to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_names_the_file_and_leaves_the_one_before(save, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"before")
    if save is save_run:
        path.unlink()  # a run would go on from it
    with pytest.raises(OSError, match=r"File too large.*model") as caught, small_files():
        save(path)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ([] if save is save_run else ["model"])
    assert save is save_run or path.read_bytes() == b"before"


@pytest.mark.parametrize("failing", ["fsync", "replace", "open"])
def test_every_failure_names_the_file(save, tmp_path, monkeypatch, failing):
    real = os.open

    def fail(path, *more):
        if failing != "open" or ".cylstm-" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), *([path] if failing == "open" else []))
        return real(path, *more)

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        save(tmp_path / "model")
    assert caught.value.filename == str(tmp_path / "model")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="another"), writing.replacing(tmp_path / "model"):
        open(tmp_path / "another").close()
    assert os.listdir(tmp_path) == []


# What killed processes leave ---------------------------------------------------------------------

WRITING = """
import sys

from cylstm.io.writing import replacing

with replacing(sys.argv[1]) as file:
    file.write(b"whole")
    file.flush()
    print("writing", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def writer(tmp_path):
    """A process amid a save to tmp_path / "model"."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", WRITING, str(tmp_path / "model")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b"writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def temporaries(folder):
    return [name for name in os.listdir(folder) if name.endswith(".part")]


def test_what_a_killed_process_left_is_removed_by_the_next_save(save, writer, tmp_path):
    writer.kill()
    writer.wait()
    assert len(temporaries(tmp_path)) == 1
    save(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_living_process_writes_is_left_to_it(save, writer, tmp_path):
    (own,) = temporaries(tmp_path)
    save(tmp_path / "model")
    assert temporaries(tmp_path) == [own]
    writer.communicate(b"\n")
    assert writer.returncode == 0
    assert (tmp_path / "model").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["model"]


def test_what_another_thread_writes_is_left_to_it(tmp_path):
    with writing.replacing(tmp_path / "first") as file:
        WRITERS["lstm"](tmp_path / "second")
        file.write(b"whole")
    assert (tmp_path / "first").read_bytes() == b"whole"


def test_what_is_not_ours_stays(save, tmp_path):
    digits = "0123456789abcdef"
    (tmp_path / f".cylstm-{digits}.part").mkdir()
    (tmp_path / f".cylstm-{digits[::-1]}.part").symlink_to("precious")
    os.mkfifo(tmp_path / f".cylstm-{'0' * 16}.part")
    for name in (
        "precious", f"cylstm-{digits}.part", f".cylstm-{digits}.part~", f".cylstm-{digits}0.part",
        f".cylstm-{digits[1:]}.part", f".cylstm-{digits.upper()}.part", f".cylstm-{digits}.tmp",
    ):  # fmt: skip
        (tmp_path / name).touch()
    there = sorted(os.listdir(tmp_path))
    save(tmp_path / "model")
    assert sorted([*there, "model"]) == sorted(os.listdir(tmp_path))


def test_a_file_taken_for_an_orphan_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, removed = locks.fcntl.flock, []

    def flock(descriptor, operation):
        if not removed:
            (name,) = temporaries(tmp_path)
            removed.append(name)
            (tmp_path / name).unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    write(tmp_path / "model", {"a": np.ones(2)}, {})
    assert removed
    assert os.listdir(tmp_path) == ["model"]


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch, writer):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    write(tmp_path / "other", {"a": np.ones(2)}, {})
    assert len(temporaries(tmp_path)) == 1
    assert (tmp_path / "other").is_file()


def test_many_at_once_leave_one_whole_file(tmp_path):
    arrays = [np.full(1000, float(n)) for n in range(8)]

    def save_often(array):
        for _ in range(20):
            write(tmp_path / "model", {"a": array}, {})

    threads = [threading.Thread(target=save_often, args=(array,)) for array in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = np.unique(read(tmp_path / "model")[0]["a"])
    assert found in range(8)
    assert os.listdir(tmp_path) == ["model"]
