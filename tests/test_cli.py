"""The command: what it prints, its exit codes, and that errors are one line."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import cylstm
from cylstm.cli.main import main
from cylstm.layers import Embedding, Last, Linear, Sequential

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """A model, and an input of 40 sequences, the working directory."""
    monkeypatch.chdir(tmp_path)
    ending = Last(), Linear(6, 3, seed=2)
    Sequential(Embedding(20, 4, seed=1), cylstm.LSTM(4, 6, seed=0), *ending).save("m.safetensors")
    tokens = [rng.integers(0, 20, rng.integers(1, 9)).tolist() for _ in range(40)]
    pq.write_table(pa.table({"id": np.arange(40), "tokens": tokens}), "in.parquet")
    return tmp_path


def run(capsys, *arguments):
    """The exit status, standard output and standard error."""
    try:
        status = main(list(arguments))
    except SystemExit as error:
        status = error.code
    return (status, *capsys.readouterr())


SCORE = "score", "m.safetensors", "in.parquet", "out"
ARGMAX = "--output", "argmax", "--labels"


def test_score(folder, capsys):
    status, out, _ = run(capsys, *SCORE)
    assert status == 0
    assert out.startswith("40 predictions of 40 rows in out;")
    model = cylstm.load("m.safetensors")
    table = pq.read_table("out")
    first = model(np.array(pq.read_table("in.parquet").column("tokens")[0].as_py())[:, None])[0]
    assert np.array_equal(np.float32(table.column("prediction")[0].as_py()), first)
    status, out, _ = run(capsys, *SCORE, "--json")
    assert (status, json.loads(out)["rows_before"]) == (0, 40)


def test_score_as_a_module(folder):
    arguments = [sys.executable, "-m", "cylstm", *SCORE, "--output", "argmax"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "40 predictions" in done.stdout
    assert not done.stderr  # a line every ten seconds


def test_labels_and_limit(folder, capsys):
    (folder / "labels.txt").write_text("low\nmiddle\nhigh\n")
    given = "--output", "argmax", "--labels", "labels.txt", "--limit", "7"
    assert run(capsys, *SCORE, *given)[0] == 0
    assert set(pq.read_table("out").column("prediction").to_pylist()) <= {"low", "middle", "high"}
    (folder / "labels.json").write_text('["low", "middle", "high"]')
    run(capsys, "score", "m.safetensors", "in.parquet", "again", *given[:3], "labels.json",
        *given[4:])  # fmt: skip
    assert pq.read_table("again").equals(pq.read_table("out"))


def test_many_inputs(folder, capsys):
    pq.write_table(pq.read_table("in.parquet"), "more.parquet")
    assert run(capsys, "score", "m.safetensors", "in.parquet", "more.parquet", "out")[0] == 0
    assert run(capsys, "score", "m.safetensors", "*.parquet", "again")[0] == 0
    assert pq.read_table("out").num_rows == 80
    assert pq.read_table("again").equals(pq.read_table("out"))


def test_a_dry_run_writes_nothing(folder, capsys):
    status, out, _ = run(capsys, *SCORE, "--dry-run")
    assert status == 0
    for text in ("40 rows", "tokens: list", "tokens of 20", "3 numbers a sequence", "id=0"):
        assert text in out
    assert not (folder / "out").exists()
    plan = json.loads(run(capsys, *SCORE, "--dry-run", "--json")[1])
    assert plan["output"]["prediction"] == "fixed_size_list<item: float>[3]"


def test_skipped_rows_have_an_exit_status(folder, capsys):
    pq.write_table(pa.table({"tokens": [[1], [20], []]}), "in.parquet")
    status, out, err = run(capsys, *SCORE)
    assert status == 1
    expected = "row 1, column 'tokens': step 0: expected a token from 0 to 19, got 20"
    assert err == f"cylstm score: in.parquet, row group 0, {expected}\n"
    status, out, err = run(
        capsys, "score", "m.safetensors", "in.parquet", "b", "--on-error", "skip"
    )
    assert (status, err) == (3, "")
    assert "2 skipped (see _skipped)" in out
    assert "cannot be scored: in.parquet" in run(capsys, *SCORE, "--dry-run")[1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("score", "none", "in.parquet", "out"), 1, "none: No such file or directory"),
        (("score", "m.safetensors", "none", "out"), 1, "none: No such file or directory"),
        (("score", "", "in.parquet", "out"), 1, "an empty path: No such file or directory"),
        (("score", "m.safetensors", "", "out"), 1, "INPUT: expected a path, got ''"),
        (("score", "m.safetensors", "in.parquet", ""), 1, "OUTPUT: expected a folder, got an emp"),
        (("score", "m.safetensors", "n*", "out"), 1, "INPUT: expected files, got none in 'n*'"),
        (("score", "m.safetensors", "folder", "out"), 1, "INPUT: expected files, got none in"),
        (("score", "folder", "in.parquet", "out"), 1, "folder: Is a directory"),
        (("score", "m.safetensors", "m.safetensors", "out"), 1, "expected Parquet, Arrow IPC, or"),
        (("score", "m.safetensors", "in.parquet", "in.parquet"), 1, "OUTPUT: expected a folder, "),
        (("score", "m.safetensors", "in.parquet", "."), 1, "OUTPUT: expected another folder than"),
        (("score", "m.safetensors", "in.parquet", "in.parquet/out"), 1, "out: Not a directory"),
        (("score", "m.safetensors", "in.parquet", "s3://a/b"), 1, "OUTPUT: expected a folder of t"),
        (
            ("score", "m.safetensors", "in.parquet"),
            2,
            "are required: OUTPUT; `cylstm score --h",
        ),
        (("score", "in.parquet", "in.parquet", "out"), 1, "a Parquet table"),
        (("score", "text.parquet", "in.parquet", "out"), 1, "a Parquet table"),
        (("score", "m.safetensors", "text.parquet", "out"), 1, "text has to be made tokens before"),
        (("score", "words.txt", "in.parquet", "out"), 1, "got one that begins with b'low"),
        ((*SCORE, "--features", "token"), 1, "--features: expected columns of the input, id, tok"),
        ((*SCORE, "--features", ""), 2, "--features: expected names such as a,b, got ''"),
        ((*SCORE, "--features", "id"), 1, "(or --by, for a step a row); 'id' has int64"),
        ((*SCORE, "--by", "id"), 2, "--features: expected the columns of a step's features, got"),
        ((*SCORE, "--feature", "tokens"), 2, "there is no --feature, but --features; `cylstm sco"),
        ((*SCORE, "--xyz=3"), 2, "there is no --xyz; `cylstm score --help` tells"),
        ((*SCORE, "--memory", "1MB"), 1, "--memory: expected"),
        ((*SCORE, "--memory", "2"), 1, " threads, got 2 bytes"),
        ((*SCORE, "--limit", "0"), 2, "--limit: expected a number from 1 on, got '0'"),
        ((*SCORE, "--threads", "two"), 2, "--threads: expected a number from 1 on, got 'two'"),
        ((*SCORE, "--order", "id"), 2, "--order: expected --by"),
        ((*SCORE, "--output", "best"), 2, "invalid choice: 'best'"),
        ((*SCORE, "--labels", "words.txt"), 2, "--labels: expected --output argmax, got 'raw'"),
        ((*SCORE, *ARGMAX, "words.txt"), 1, "--labels: expected 3, one for each output, got 2"),
        ((*SCORE, *ARGMAX, "in.parquet"), 2, "--labels: expected text in UTF-8, got other bytes"),
        ((*SCORE, *ARGMAX, "broken.json"), 2, "--labels: expected a JSON list in broken.json, got"),
        ((*SCORE, *ARGMAX, "none"), 1, "none: No such file or directory"),
        (("info", "in.parquet"), 1, "a Parquet table"),
        (("info",), 2, "are required: FILE; `cylstm info --help`"),
        (("info", "m.safetensors", "more"), 2, "expected no further argument, got 'more'"),
        (("convert", "m.safetensors", "m.npy"), 1, ".pt, got m.npy"),
        (("convert", "m.safetensors", "./m.safetensors"), 1, "OUT: expected another file than IN"),
        (("convert", "m.safetensors", "none/m.onnx"), 1, "OUT: expected a file in a folder that"),
        (("bench", "m.safetensors", "--batches", "0"), 2, "expected numbers such as 1,32"),
        (("bench", "m.safetensors", "--steps", "0"), 2, "--steps: expected a number from 1 on"),
        (("sing",), 2, "invalid choice: 'sing'"),
    ],
)
def test_errors_are_one_line_that_helps(folder, capsys, arguments, status, message):
    (folder / "folder").mkdir()
    (folder / "words.txt").write_text("low\nhigh\n")
    (folder / "broken.json").write_text('["low", ')
    pq.write_table(pa.table({"text": ["some words"]}), "text.parquet")
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (status, "")
    assert message in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "out")])
def test_an_output_that_cannot_be_written(folder, capsys, monkeypatch, error):
    def makedirs(*given, **options):
        raise error

    monkeypatch.setattr(os, "makedirs", makedirs)
    status, out, err = run(capsys, *SCORE)
    assert (status, out, err) == (1, "", "cylstm score: out: Permission denied\n")


def test_what_to_install_is_said(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = run(capsys, *SCORE)
    assert status == 1
    assert err.endswith("pyarrow, which is not installed: python -m pip install 'cylstm[score]'\n")
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, err = run(capsys, "convert", "m.safetensors", "m.pt", "--lstm")
    assert status == 1
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="SIGINT is ignored, as after nohup"
)
def test_ctrl_c_ends_at_a_whole_part(folder, rng):
    tokens = [rng.integers(0, 20, 400).tolist() for _ in range(20_000)]
    pq.write_table(pa.table({"tokens": tokens}), "in.parquet")
    command = [sys.executable, "-m", "cylstm", *SCORE, "--part-rows", "20", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(folder.glob("out/part*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "cylstm score: stopped; the same command goes on from here\n"
    parts = json.loads((folder / "out" / "_manifest.json").read_text())["parts"]
    assert 0 < len(parts) < 1000
    assert sorted(os.listdir("out")) == ["_manifest.json", *(part["file"] for part in parts)]


def test_info(folder, capsys):
    status, out, _ = run(capsys, "info", "m.safetensors")
    assert status == 0
    assert "cylstm, safetensors" in out
    assert "takes 20 tokens, (T, N) first; returns 3 numbers a sequence" in out
    found = json.loads(run(capsys, "info", "m.safetensors", "--json")[1])
    lstm, linear = 4 * 6 * (4 + 6), 6 * 3
    assert found["parameters"] == 20 * 4 + lstm + 24 + linear + 3
    assert found["flops_per_step"] == 2 * (lstm + linear)
    assert found["bytes_per_step"] == 4 * (4 + lstm + 24 + linear + 3)


def test_convert(folder, capsys):
    lstm = cylstm.LSTM(3, 4, seed=0)
    lstm.save("l.safetensors")
    x = np.ones((5, 2, 3), np.float32)
    pytest.importorskip("onnx")
    assert run(capsys, "convert", "l.safetensors", "l.onnx")[0] == 0
    assert run(capsys, "convert", "l.onnx", "again.safetensors", "--lstm")[0] == 0
    assert np.array_equal(cylstm.load("again.safetensors")(x)[0], lstm(x)[0])
    status, _, err = run(capsys, "convert", "l.onnx", "chain.safetensors")
    assert status == 1
    assert "--lstm takes the LSTM alone" in err
    pytest.importorskip("torch")
    assert run(capsys, "convert", "l.safetensors", "l.pt")[0] == 0
    assert run(capsys, "convert", "l.pt", "torch.safetensors", "--time-first")[0] == 0
    assert np.array_equal(cylstm.load("torch.safetensors")(x)[0], lstm(x)[0])


@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
def test_convert_to_fewer_bits(folder, capsys, kind):
    lstm = cylstm.LSTM(3, 4, seed=0)
    lstm.save("l.safetensors")
    assert run(capsys, "convert", "l.safetensors", "q.safetensors", "--quantize", kind)[0] == 0
    x = np.ones((5, 2, 3), np.float32)
    assert np.array_equal(cylstm.load("q.safetensors")(x)[0], lstm.quantize(kind)(x)[0])
    assert run(capsys, "convert", "l.safetensors", "q.onnx", "--quantize", kind)[0] == 1


def test_bench(folder, capsys, monkeypatch):
    from cylstm.cli import limits

    monkeypatch.setattr(limits, "SECONDS", 0.001)
    given = "--threads", "1,2", "--batches", "1,3", "--steps", "7"
    status, out, _ = run(capsys, "bench", "m.safetensors", *given, "--json")
    assert status == 0
    found = json.loads(out)
    times = found["times"]
    assert len(times) == 8  # of each number of threads two batches, of which streams too
    assert all(row["microseconds"] > 0 for row in times)
    for limit in found["limits"]:
        least = {
            "arithmetic": found["flops_per_step"] / limit["flops"],
            "reading": found["bytes_per_step"] / limit["bytes"],
        }
        (row,) = (
            row
            for row in times
            if (row["threads"], row["what"]) == (limit["threads"], "a stream's step, N=1")
        )
        assert row["limit"] == max(least, key=least.get)
        assert row["share"] == pytest.approx(max(least.values()) * 1e6 / row["microseconds"])
    assert "a call, T=7 N=3" in run(capsys, "bench", "m.safetensors", *given)[1]


def test_help_tells_of_exit_status(capsys):
    for command in ((), ("score",), ("info",), ("convert",), ("bench",)):
        status, out, _ = run(capsys, *command, "--help")
        assert status == 0
        assert "130" in out


def test_help_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ((), ("score",), ("info",), ("convert",), ("bench",)):
        out = run(capsys, *command, "--help")[1]
        assert max(map(len, out.splitlines())) <= 80
        assert out.count(f"  {' '.join(('cylstm', *command))} ") >= 2  # examples


def test_nothing_gets_help(capsys):
    status, out, err = run(capsys)
    assert (status, out) == (2, "")
    assert "cylstm info tagger.safetensors" in err


def test_examples_are_understood(capsys, folder, monkeypatch):
    """Each command of the help's examples is parsed, and fails at the file that is not there."""
    import shlex

    names = [(), ("score",), ("info",), ("convert",), ("bench",)]
    helps = [run(capsys, *command, "--help")[1].replace("\\\n", "") for command in names]
    lines = [line for text in helps for line in text.splitlines() if line.startswith("  cylstm ")]
    assert len(lines) >= 12
    for line in lines:
        status, _, err = run(capsys, *shlex.split(line)[1:])
        assert status == 1, (line, err)
        assert "No such file" in err or "expected files, got none" in err
