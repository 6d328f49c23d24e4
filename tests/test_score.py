"""Batch jobs: what comes out is what the model gives to each sequence alone, whatever happens."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cylstm
import cylstm.jobs.rows
from cylstm.layers import Embedding, Last, Linear, Sequential
from threads import threads_as_before

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WORDS, CLASSES = 50, 3


def tagger(last=True, seed=0):
    """A model of tokens, with an output for each sequence, or for each step."""
    lstm = cylstm.LSTM(4, 6, bidirectional=True, seed=seed)
    ending = [Last()] if last else []
    return Sequential(Embedding(WORDS, 4, seed=1), lstm, *ending, Linear(12, CLASSES, seed=2))


def random_tokens(rng, count, longest=12):
    return [rng.integers(0, WORDS, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


def write(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def alone(model, sequence):
    """The output of one sequence, called by itself: (F,) or (T, F)."""
    return model(np.asarray(sequence)[:, None])[..., 0, :]


def content(folder):
    """The bytes of all files, by their names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def predictions(folder, name="prediction"):
    return pq.read_table(folder).column(name).to_pylist()


def same_bits(found, expected):
    return np.array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))


# A sequence a row ------------------------------------------------------------------------------


def test_each_sequence_is_scored_as_alone(rng, tmp_path):
    model, tokens = tagger(), random_tokens(rng, 200)
    source = write(tmp_path / "in.parquet", {"id": np.arange(200), "tokens": tokens})
    summary = cylstm.score(model, source, tmp_path / "out", batch_tokens=64)
    assert (summary.rows, summary.predictions, summary.skipped) == (200, 200, 0)
    table = pq.read_table(tmp_path / "out")
    assert table.column("id").to_pylist() == list(range(200))
    assert same_bits(table.column("prediction").to_pylist(), [alone(model, t) for t in tokens])


def test_a_prediction_for_each_step(rng, tmp_path):
    model, tokens = tagger(last=False), random_tokens(rng, 100)
    source = write(tmp_path / "in.parquet", {"tokens": tokens})
    cylstm.score(model, source, tmp_path / "out", batch_tokens=64, part_rows=30)
    for found, sequence in zip(predictions(tmp_path / "out"), tokens, strict=True):
        assert same_bits(found, alone(model, sequence))
    cylstm.score(model, source, tmp_path / "last", steps="last")
    expected = [alone(model, sequence)[-1] for sequence in tokens]
    assert same_bits(predictions(tmp_path / "last"), expected)


def test_lists_of_features(rng, tmp_path):
    model = cylstm.LSTM(2, 3, seed=0)
    sequences = [rng.standard_normal((n, 2)) for n in (4, 1, 7)]
    kind = pa.list_(pa.list_(pa.float64()))
    column = pa.array([s.tolist() for s in sequences], kind)
    source = write(tmp_path / "in.parquet", {"x": column})
    cylstm.score(model, source, tmp_path / "out")
    for found, s in zip(predictions(tmp_path / "out"), sequences, strict=True):
        assert same_bits(found, model(s.astype(np.float32))[0])
    halves = [pa.array([s[:, k].tolist() for s in sequences]) for k in (0, 1)]
    source = write(tmp_path / "two.parquet", {"a": halves[0], "b": halves[1]})
    cylstm.score(model, source, tmp_path / "two", features=["a", "b"])
    assert predictions(tmp_path / "two") == predictions(tmp_path / "out")
    fixed = column.cast(pa.list_(pa.list_(pa.float64(), 2)))
    source = write(tmp_path / "fixed.parquet", {"x": fixed})
    cylstm.score(model, source, tmp_path / "fixed")
    assert predictions(tmp_path / "fixed") == predictions(tmp_path / "out")


def test_probabilities_and_labels(rng, tmp_path):
    model, tokens = tagger(), random_tokens(rng, 50)
    source = write(tmp_path / "in.parquet", {"tokens": tokens})
    raw = np.array([alone(model, sequence) for sequence in tokens], np.float64)
    cylstm.score(model, source, tmp_path / "p", output="probabilities")
    exponentials = np.exp(raw)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictions(tmp_path / "p"), expected, rtol=1e-5)
    cylstm.score(model, source, tmp_path / "a", output="argmax", labels=["no", "may be", "yes"])
    expected = [["no", "may be", "yes"][k] for k in raw.argmax(axis=1)]
    assert predictions(tmp_path / "a") == expected
    cylstm.score(model, source, tmp_path / "k", output="argmax")
    assert predictions(tmp_path / "k") == raw.argmax(axis=1).tolist()


def test_the_state(rng, tmp_path):
    model = cylstm.LSTM(1, 3, num_layers=2, seed=0)
    sequences = [rng.standard_normal(n).tolist() for n in (4, 1, 7)]
    source = write(tmp_path / "in.parquet", {"x": sequences})
    cylstm.score(model, source, tmp_path / "out", output="state")
    for n, sequence in enumerate(sequences):
        _, (h, c) = model(np.array(sequence, np.float32)[:, None])
        assert same_bits(predictions(tmp_path / "out", "h")[n], h.ravel())
        assert same_bits(predictions(tmp_path / "out", "c")[n], c.ravel())


def test_one_number_is_a_plain_column(rng, tmp_path):
    model = Sequential(cylstm.LSTM(1, 3, seed=0), Last(), Linear(3, 1, seed=0))
    sequences = [rng.standard_normal(n).tolist() for n in (4, 1, 7)]
    source = write(tmp_path / "in.parquet", {"x": sequences})
    cylstm.score(model, source, tmp_path / "out")
    schema = pq.read_schema(next((tmp_path / "out").glob("part*")))
    assert schema.field("prediction").type == pa.float32()


# A step a row ----------------------------------------------------------------------------------


def steps_table(rng, groups=40, shuffle=True):
    """Groups of steps one after the other, the steps of each in a random order."""
    rows = []
    for group in range(groups):
        times = rng.permutation(1000)[: rng.integers(1, 12)]
        times = times if shuffle else np.sort(times)
        rows += [(f"g{group}", int(t), *rng.standard_normal(2)) for t in times]
    names = ("id", "time", "a", "b")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


def outputs_by_time(model, columns):
    """The output of each step, (S, F) in the order of rows, group by group, each sorted."""
    ids = np.array(columns["id"])
    x = np.stack([columns["a"], columns["b"]], axis=1).astype(np.float32)
    expected = np.zeros((len(ids), 3), np.float32)
    for name in dict.fromkeys(columns["id"]):
        rows = np.flatnonzero(ids == name)
        rows = rows[np.argsort(np.array(columns["time"])[rows])]
        expected[rows] = model(x[rows])[0]
    return expected


STEPS = {"by": "id", "order": "time", "features": ["a", "b"]}


@pytest.mark.parametrize("row_group_size", [1, 7, 10_000])
@pytest.mark.parametrize("part_rows", [1, 9, 100])
def test_groups_over_edges(rng, tmp_path, row_group_size, part_rows):
    model, columns = cylstm.LSTM(2, 3, seed=0), steps_table(rng)
    cut = len(columns["id"]) // 2
    for name, part in (("a", slice(0, cut)), ("b", slice(cut, None))):
        half = {key: values[part] for key, values in columns.items()}
        write(tmp_path / "in" / f"{name}.parquet", half, row_group_size=row_group_size)
    cylstm.score(model, tmp_path / "in", tmp_path / "out", part_rows=part_rows, **STEPS)
    table = pq.read_table(tmp_path / "out")
    assert table.column("id").to_pylist() == columns["id"]
    assert table.column("time").to_pylist() == columns["time"]
    assert same_bits(table.column("prediction").to_pylist(), outputs_by_time(model, columns))


def test_a_prediction_for_each_group(rng, tmp_path):
    model, columns = cylstm.LSTM(2, 3, seed=0), steps_table(rng)
    source = write(tmp_path / "in.parquet", columns)
    cylstm.score(model, source, tmp_path / "out", steps="last", **STEPS)
    table, expected = pq.read_table(tmp_path / "out"), outputs_by_time(model, columns)
    assert table.column("id").to_pylist() == list(dict.fromkeys(columns["id"]))
    for name, found in zip(
        *(table.column(c).to_pylist() for c in ("id", "prediction")), strict=True
    ):
        times = [(t, n) for n, t in enumerate(columns["time"]) if columns["id"][n] == name]
        assert same_bits(found, expected[max(times)[1]])


def test_csv(rng, tmp_path):
    model, columns = cylstm.LSTM(2, 3, seed=0), steps_table(rng)
    from pyarrow import csv

    csv.write_csv(pa.table(columns), tmp_path / "in.csv")
    cylstm.score(model, tmp_path / "in.csv", tmp_path / "out", **STEPS)
    assert same_bits(predictions(tmp_path / "out"), outputs_by_time(model, columns))


def test_arrow(rng, tmp_path):
    model, tokens = tagger(), random_tokens(rng, 100)
    table = pa.table({"tokens": tokens})
    with (
        pa.OSFile(str(tmp_path / "in.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as w,
    ):
        w.write_table(table, max_chunksize=7)
    with (
        pa.OSFile(str(tmp_path / "in.arrows"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as w,
    ):
        w.write_table(table, max_chunksize=7)
    for name in ("in.arrow", "in.arrows"):
        cylstm.score(model, tmp_path / name, tmp_path / f"out-{name}")
        found = predictions(tmp_path / f"out-{name}")
        assert same_bits(found, [alone(model, sequence) for sequence in tokens])


def test_a_group_that_comes_again_is_refused(tmp_path):
    model = cylstm.LSTM(1, 2, seed=0)
    source = write(tmp_path / "in.parquet", {"id": [1, 1, 2, 1], "x": [0.5] * 4})
    with pytest.raises(ValueError, match=r"row 3: id=1 comes again.*sort the input by id"):
        cylstm.score(model, source, tmp_path / "out", by="id", features="x")
    # Nor one that an earlier run has scored.
    ids = [1, 1, 2, 3, 1, 4]
    source = write(tmp_path / "on.parquet", {"id": ids, "x": [0.5] * 6}, row_group_size=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="id=1 comes again"):
            cylstm.score(model, source, tmp_path / "on", by="id", features="x", part_rows=1)
    assert len(json.loads((tmp_path / "on" / "_manifest.json").read_text())["parts"]) == 2


def test_tokens_a_step_a_row(rng, tmp_path):
    """Groups are told by several columns, whose keys may be negative, text or null."""
    model, tokens = tagger(), rng.integers(0, WORDS, 9)
    columns = {"a": [-1, -1, -2, -2, -2, 3, 3, None, 4], "b": list("xxxxyyyyy"), "t": tokens}
    source = write(tmp_path / "in.parquet", columns)
    cylstm.score(model, source, tmp_path / "out", by=["a", "b"], features="t", on_error="skip")
    table = pq.read_table(tmp_path / "out")
    assert table.column("a").to_pylist() == [-1, -2, -2, 3, 4]
    groups = [slice(0, 2), slice(2, 4), slice(4, 5), slice(5, 7), slice(8, 9)]
    expected = [alone(model, tokens[group]) for group in groups]
    assert same_bits(table.column("prediction").to_pylist(), expected)


def test_keys_of_many_types(tmp_path):
    keys = {
        "day": pa.array([18262, 18263], pa.date32()),
        "time": pa.array([1, 2], pa.timestamp("ns")),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
        "flag": [True, None],
        "price": pa.array(["1.50", "2.25"]).cast(pa.decimal128(4, 2)),
    }
    source = write(tmp_path / "in.parquet", keys | {"tokens": [[1], [2]], "s": [{"x": 1}] * 2})
    cylstm.score(tagger(), source, tmp_path / "out")
    found, given = pq.read_table(tmp_path / "out"), pq.read_table(source)
    assert found.column_names == [*keys, "prediction"]
    assert all(found.column(name).to_pylist() == given.column(name).to_pylist()
               for name in keys if name != "time")  # fmt: skip
    assert found.column("time").equals(given.column("time"))


# The same bytes --------------------------------------------------------------------------------


def test_bytes_depend_on_no_thread_batch_or_memory(rng, tmp_path):
    model, tokens = tagger(), random_tokens(rng, 500)
    source = write(tmp_path / "in.parquet", {"tokens": tokens}, row_group_size=70)
    found = []
    ways = [(1, 1), (1, 4096), (2, 64), (3, 7)]
    for n, (threads, batch_tokens) in enumerate(ways):
        given = {"threads": threads, "batch_tokens": batch_tokens, "memory": f"{2 + n}GB"}
        cylstm.score(model, source, tmp_path / f"{n}", part_rows=110, **given)
        found.append(content(tmp_path / f"{n}"))
    assert all(one == found[0] for one in found)
    with threads_as_before():
        cylstm.set_num_threads(1)
        cylstm.score(model, source, tmp_path / "one", part_rows=110)
    assert content(tmp_path / "one") == found[0]


def test_other_row_groups_give_the_same_parts(rng, tmp_path):
    model, tokens = tagger(), random_tokens(rng, 300)
    for n, size in enumerate((13, 300)):
        write(tmp_path / f"{n}.parquet", {"tokens": tokens}, row_group_size=size)
        cylstm.score(model, tmp_path / f"{n}.parquet", tmp_path / f"{n}", part_rows=64)
    parts = [
        {name: data for name, data in content(tmp_path / f"{n}").items() if name.startswith("part")}
        for n in range(2)
    ]
    assert parts[0] == parts[1]
    assert len(parts[0]) == 5


KILLED = """
import sys, cylstm, json
options = json.loads(sys.argv[4])
cylstm.score(sys.argv[1], sys.argv[2], sys.argv[3], **options)
"""
KILLS = 6  # of each job; the page on batch jobs tells of more


@pytest.mark.parametrize("shape", ["rows", "steps"])
def test_killed_at_random_moments(rng, tmp_path, shape):
    """The output is that of a job that nobody killed."""
    if shape == "rows":
        model, options = tagger(), {"part_rows": 40, "on_error": "skip"}
        tokens = [*random_tokens(rng, 4000), [WORDS], None]
        source = write(tmp_path / "in.parquet", {"tokens": tokens[::-1]}, row_group_size=100)
    else:
        model, options = cylstm.LSTM(2, 3, seed=0), {"part_rows": 40, **STEPS}
        source = write(tmp_path / "in.parquet", steps_table(rng, 3000), row_group_size=100)
    model.save(tmp_path / "model.safetensors")
    cylstm.score(model, source, tmp_path / "whole", **options)
    arguments = [str(tmp_path / "model.safetensors"), str(source), str(tmp_path / "killed")]
    command = [sys.executable, "-I", "-c", KILLED, *arguments]
    chance, kills = random.Random(7), 0
    while kills < KILLS:
        ways = {"threads": chance.choice([1, 2]), "batch_tokens": chance.choice([8, 4096])}
        process = subprocess.Popen([*command, json.dumps(options | ways)])
        deadline = time.monotonic() + 60
        parts = len(list((tmp_path / "killed").glob("part*")))
        while len(list((tmp_path / "killed").glob("part*"))) <= parts and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
    subprocess.run([*command, json.dumps(options)], check=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_part_that_was_lost_or_changed_is_written_again(rng, tmp_path):
    model, tokens = tagger(), random_tokens(rng, 100)
    source = write(tmp_path / "in.parquet", {"tokens": tokens})
    target = tmp_path / "out"
    cylstm.score(model, source, target, part_rows=30)
    before = content(target)
    (target / "part-000001.parquet").unlink()
    (target / "part-000003.parquet").write_bytes(before["part-000003.parquet"][:-1] + b"?")
    summary = cylstm.score(model, source, target, part_rows=30)
    assert content(target) == before
    assert summary.rows_before == 60


def test_done_is_done(rng, tmp_path):
    source = write(tmp_path / "in.parquet", {"tokens": random_tokens(rng, 100)})
    cylstm.score(tagger(), source, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    summary = cylstm.score(tagger(), source, tmp_path / "out")
    assert summary.rows_before == summary.rows == 100
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


# What is refused -------------------------------------------------------------------------------


def test_another_model_option_or_input_is_refused(rng, tmp_path):
    tokens = random_tokens(rng, 100)
    source = write(tmp_path / "in.parquet", {"tokens": tokens})
    target = tmp_path / "out"
    cylstm.score(tagger(), source, target)
    before = content(target)
    with pytest.raises(ValueError, match="begun with another model"):
        cylstm.score(tagger(seed=1), source, target)
    with pytest.raises(ValueError, match="another option: output was 'raw', is 'argmax'"):
        cylstm.score(tagger(), source, target, output="argmax")
    with pytest.raises(ValueError, match="another option: limit"):
        cylstm.score(tagger(), source, target, limit=3)
    write(source, {"tokens": tokens[::-1]})
    with pytest.raises(ValueError, match=r"another input: in\.parquet"):
        cylstm.score(tagger(), source, target)
    assert content(target) == before


def test_a_change_that_hides_is_refused(rng, tmp_path):
    """In the middle of the file, of the same size, with the time of writing set back."""
    tokens = [rng.integers(0, WORDS, 12).tolist() for _ in range(20_000)]
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    source = write(tmp_path / "in.parquet", {"tokens": tokens}, **options)
    cylstm.score(tagger(), source, tmp_path / "out", limit=500)
    times, data = os.stat(source), bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = data[middle + 8 : middle + 16]
    source.write_bytes(data)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert os.stat(source).st_size == times.st_size
    assert os.stat(source).st_mtime_ns == times.st_mtime_ns
    with pytest.raises(ValueError, match=r"another input: in\.parquet"):
        cylstm.score(tagger(), source, tmp_path / "out", limit=500)


def test_a_change_during_the_job_is_refused(rng, tmp_path, monkeypatch):
    """Of any file that a part is of."""
    from cylstm.jobs import run

    for n in range(3):
        write(tmp_path / "in" / f"{n}.parquet", {"tokens": random_tokens(rng, 10)})
    real = run.encoded

    def encoded(*given):
        os.utime(tmp_path / "in" / "1.parquet")
        return real(*given)

    monkeypatch.setattr(run, "encoded", encoded)
    with pytest.raises(ValueError, match=r"1\.parquet: it changed while it was read"):
        cylstm.score(tagger(), tmp_path / "in", tmp_path / "out")


def test_where_output_must_not_go(rng, tmp_path):
    source = write(tmp_path / "in" / "a.parquet", {"tokens": random_tokens(rng, 10)})
    for target in (tmp_path / "in", tmp_path / "in" / "out", tmp_path):
        with pytest.raises(ValueError, match="target: expected"):
            cylstm.score(tagger(), tmp_path / "in", target)
    with pytest.raises(ValueError, match="expected a folder, got the file"):
        cylstm.score(tagger(), source, source)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"new or empty folder.*mine\.txt"):
        cylstm.score(tagger(), source, tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": "nothing"}, r"features: expected columns of the input.*got 'nothing'"),
        ({"features": "id"}, "features: expected list columns, a sequence a row"),
        ({"features": ["tokens", "others"]}, "expected one column of tokens"),
        ({"features": "words"}, "expected one column of tokens, integers"),
        ({}, "features: expected the column of sequences.*tokens, others, words"),
        ({"features": "tokens", "keys": ["tokens", "none"]}, "keys: expected columns"),
        ({"features": "tokens", "output": "best"}, "output: expected one of raw"),
        ({"features": "tokens", "labels": ["a"]}, "labels: expected output='argmax'"),
        ({"features": "tokens", "output": "argmax", "labels": ["a"]}, "labels: expected 3"),
        ({"features": "tokens", "steps": "all"}, "steps: expected 'last'"),
        ({"features": "tokens", "order": "id"}, "order: expected `by`"),
        ({"by": "id"}, "features: expected the columns of a step's features"),
        ({"features": "tokens", "on_error": "ignore"}, "on_error: expected one of fail, skip"),
        ({"features": "tokens", "memory": "10MB"}, "memory: expected .*MB at least"),
        ({"features": "tokens", "memory": "much"}, "memory: expected a size"),
        ({"features": "tokens", "limit": 0}, "limit: expected"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, given, message):
    columns = {"id": [1], "tokens": [[1, 2]], "others": [[1, 2]], "words": [["a"]]}
    source = write(tmp_path / "in.parquet", columns)
    with pytest.raises(ValueError, match=message):
        cylstm.score(tagger(), source, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


# Bad rows --------------------------------------------------------------------------------------

BAD = {
    "null": (None, "expected a list, got null"),
    "empty": ([], "expected a step at least, got an empty list"),
    "a null": ([1, None], "step 1: expected a token, got null"),
    "too large": ([1, 2, WORDS], f"step 2: expected a token from 0 to {WORDS - 1}, got {WORDS}"),
    "negative": ([-1], f"step 0: expected a token from 0 to {WORDS - 1}, got -1"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_row_fails_or_is_skipped(rng, tmp_path, bad):
    sequence, reason = bad
    tokens = random_tokens(rng, 60)
    tokens[37] = sequence
    columns = {"id": np.arange(60), "tokens": pa.array(tokens, pa.list_(pa.int32()))}
    source = write(tmp_path / "in.parquet", columns, row_group_size=25)
    place = rf"in\.parquet, row group 1, row 37, column 'tokens': {reason}"
    with pytest.raises(cylstm.jobs.rows.RowError, match=place) as caught:
        cylstm.score(tagger(), source, tmp_path / "fail", part_rows=10)
    assert (caught.value.row.row, caught.value.row.keys) == (37, {"id": 37})
    assert len(predictions(tmp_path / "fail")) == 30  # those before are there
    summary = cylstm.score(tagger(), source, tmp_path / "skip", on_error="skip", part_rows=10)
    assert (summary.predictions, summary.skipped) == (59, 1)
    kept = [n for n in range(60) if n != 37]
    table = pq.read_table(tmp_path / "skip")
    assert table.column("id").to_pylist() == kept
    expected = [alone(tagger(), tokens[n]) for n in kept]
    assert same_bits(table.column("prediction").to_pylist(), expected)
    (line,) = (tmp_path / "skip" / "_skipped" / "part-000003.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["row"], found["row_group"], found["reason"]) == (37, 1, reason)


def test_bad_features(tmp_path):
    kind = pa.list_(pa.list_(pa.float64()))
    good = [[1.0, 2.0]]
    rows = [
        good, [[1.0]], [None], [[1.0, None]], [[1.0, float("nan")]], good, [[1.0, 2.0], [1e300, 0]],
        [[1, 2], [3, 4, 5]],
    ]  # fmt: skip
    source = write(tmp_path / "in.parquet", {"x": pa.array(rows, kind)})
    model = cylstm.LSTM(2, 3, seed=0)
    summary = cylstm.score(model, source, tmp_path / "out", on_error="skip")
    assert (summary.predictions, summary.skipped) == (2, 6)
    lines = (tmp_path / "out" / "_skipped" / "part-000000.jsonl").read_text().splitlines()
    found = {line["row"]: line["reason"] for line in map(json.loads, lines)}
    assert found == {
        1: "step 0: expected 2 features, got 1",
        2: "step 0: expected a step, got null",
        3: "step 0: expected a number, got null",
        4: "step 0: expected finite float32, got nan",
        6: "step 1: expected finite float32, got inf",
        7: "step 1: expected 2 features, got 3",
    }
    expected = model(np.array(good, np.float32))[0]
    assert all(same_bits(one, expected) for one in predictions(tmp_path / "out"))


def test_lists_of_different_lengths(tmp_path):
    columns = {"a": [[1.0, 2.0], [3.0], [4.0]], "b": [[1.0, 2.0], [3.0, 4.0], [5.0]]}
    source = write(tmp_path / "in.parquet", columns)
    model = cylstm.LSTM(2, 3, seed=0)
    with pytest.raises(ValueError, match=r"row 1, column 'b': expected as many steps as in 'a'"):
        cylstm.score(model, source, tmp_path / "fail", features=["a", "b"])
    cylstm.score(model, source, tmp_path / "skip", features=["a", "b"], on_error="skip")
    first, last = predictions(tmp_path / "skip")
    assert same_bits(first, model(np.array([[1, 1], [2, 2]], np.float32))[0])
    assert same_bits(last, model(np.array([[4, 5]], np.float32))[0])


def test_bad_steps_spoil_their_group(tmp_path):
    columns = {
        "id": [1, 1, 2, 2, 3, 3, 4, None, 5],
        "time": [2, 1, 2, 2, None, 1, 1, 1, 1],
        "x": [0.5, 0.25, 1, 1, 1, 1, None, 1, 0.75],
    }
    source = write(tmp_path / "in.parquet", columns)
    model = cylstm.LSTM(1, 2, seed=0)
    given = {"by": "id", "order": "time", "features": "x"}
    with pytest.raises(ValueError, match=r"row 3, column 'time': expected each once in a group"):
        cylstm.score(model, source, tmp_path / "fail", **given)
    summary = cylstm.score(model, source, tmp_path / "out", on_error="skip", **given)
    assert (summary.predictions, summary.skipped) == (2, 4)
    lines = (tmp_path / "out" / "_skipped" / "part-000000.jsonl").read_text().splitlines()
    found = [(line["row"], line["column"]) for line in map(json.loads, lines)]
    assert found == [(3, "time"), (4, "time"), (6, "x"), (7, "id")]
    table = pq.read_table(tmp_path / "out")
    assert table.column("id").to_pylist() == [1, 1, 5]
    first = model(np.array([[0.25], [0.5]], np.float32))[0]
    assert same_bits(table.column("prediction").to_pylist()[:2], first[::-1])


def test_two_jobs_do_not_write_to_one_folder(rng, tmp_path):
    from cylstm.jobs.manifest import locked

    source = write(tmp_path / "in.parquet", {"tokens": random_tokens(rng, 10)})
    (tmp_path / "out").mkdir()
    with locked(str(tmp_path / "out")), pytest.raises(ValueError, match="another job is writing"):
        cylstm.score(tagger(), source, tmp_path / "out")
    assert cylstm.score(tagger(), source, tmp_path / "out").predictions == 10


# Files from strangers --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damaged_files_are_named(rng, tmp_path, kind):
    tokens = random_tokens(rng, 300)
    source = write(tmp_path / f"in.{kind}", {"tokens": tokens}, row_group_size=50)
    if kind == "arrow":
        table = pa.table({"tokens": tokens})
        with pa.OSFile(str(source), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    good = source.read_bytes()
    chance = random.Random(3)
    for n in range(60):
        damaged = bytearray(good)
        if n % 3 == 0:
            damaged = damaged[: chance.randrange(len(good))]
        for _ in range(8):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        source.write_bytes(damaged)
        told = None
        try:
            cylstm.score(tagger(), source, tmp_path / f"{kind}{n}", on_error="skip")
        except (ValueError, MemoryError) as error:
            told = str(error)
        assert told is None or (("in." in told or "column" in told) and "\n" not in told)


FOOTERS = """
import io, sys
import pyarrow as pa, pyarrow.parquet as pq
from cylstm.jobs.files import InputFile

sink = io.BytesIO()
pq.write_table(pa.table({"id": list(range(40)), "tokens": [[1, 2]] * 40}), sink)
good = sink.getvalue()
begin = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
for at in range(begin, len(good) - 8):
    for bit in (1, 2, 16):
        data = bytearray(good)
        data[at] ^= bit
        with open(sys.argv[1], "wb") as file:
            file.write(data)
        try:
            given = InputFile(sys.argv[1], "in", "parquet")
            for _ in given.blocks(0, ["tokens"], given.schema()):
                pass
        except (OSError, ValueError, KeyError, MemoryError):
            pass
print("read")
"""


def test_no_damaged_footer_ends_the_process(tmp_path):
    """pyarrow aborts where it is asked about a column chunk of wrong size statistics."""
    command = [sys.executable, "-c", FOOTERS, str(tmp_path / "in.parquet")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "read\n", done.stderr


def test_an_unreadable_page_is_told_with_its_place(rng, tmp_path):
    source = write(tmp_path / "in.parquet", {"t": random_tokens(rng, 90)}, row_group_size=30)
    begin = pq.read_metadata(source).row_group(1).column(0).data_page_offset
    data = bytearray(source.read_bytes())
    data[begin : begin + 20] = b"\xff" * 20
    source.write_bytes(data)
    with pytest.raises(ValueError, match=r"in\.parquet: .* from row 30 on: row group 1: "):
        cylstm.score(tagger(), source, tmp_path / "out")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "in.parquet")
    with pytest.raises(ValueError, match=r"in\.parquet: expected a file"):
        cylstm.score(tagger(), tmp_path / "in.parquet", tmp_path / "out")


def write_as(table, path):
    """Write a table as what the ending of a name says."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float16()),
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.list_(pa.float32(), 1)),
        pa.large_list(pa.large_list(pa.float16())),
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_lists_of_every_kind(tmp_path, kind, suffix):
    values = [[0.5, 1.0], [2.0], [0.25]]
    values = [[np.float16(one) for one in sequence] for sequence in values]
    if hasattr(kind.value_type, "value_type"):  # of steps that are lists
        values = [[[one] for one in sequence] for sequence in values]
    table = pa.table({"x": pa.array(values, kind)})
    source = write_as(table, tmp_path / f"in.{suffix}")
    model = cylstm.LSTM(1, 3, seed=0)
    cylstm.score(model, source, tmp_path / "out")
    for found, sequence in zip(predictions(tmp_path / "out"), values, strict=True):
        x = np.array(sequence, np.float32).reshape(-1, 1)
        assert same_bits(found, model(x)[0])


STRANGE = {
    "list_view": pa.array([[1]], pa.list_view(pa.int64())),
    "list_view of a step": pa.array([[[1.0]]], pa.list_(pa.list_view(pa.float32()))),
    "dictionary": pa.ListArray.from_arrays([0, 1], pa.array([1]).dictionary_encode()),
    "run_end_encoded": pa.RunEndEncodedArray.from_arrays([1], pa.array([[1]])),
    "decimal128": pa.array([["1.5"]]).cast(pa.list_(pa.decimal128(5, 2))),
    "timestamp": pa.array([[1]], pa.list_(pa.timestamp("us"))),
    "bool": pa.array([[True]]),
    "struct": pa.array([[{"a": 1.0}]]),
    "map": pa.array([[("a", 1.0)]], pa.map_(pa.string(), pa.float64())),
    "string": pa.array([["a"]]),
    "null": pa.array([[None]], pa.list_(pa.null())),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_features_are_refused_by_name(tmp_path, kind):
    source = write_as(pa.table({"x": STRANGE[kind]}), tmp_path / "in.arrow")
    with pytest.raises(ValueError, match=r"features: expected .*'x'") as told:
        cylstm.score(cylstm.LSTM(1, 2, seed=0), source, tmp_path / "out", features="x")
    assert kind.split()[0] in str(told.value)


def test_strange_keys_are_refused_by_name(tmp_path):
    table = pa.table({"x": [[0.5]], "k": pa.array([pa.MonthDayNano([1, 2, 3])])})
    source = write_as(table, tmp_path / "in.arrow")
    with pytest.raises(ValueError, match=r"keys: expected what Parquet can hold.*interval in 'k'"):
        cylstm.score(cylstm.LSTM(1, 2, seed=0), source, tmp_path / "out")
    table = pa.table({"k": [1], "t": pa.array([np.float16(1)]), "x": [0.5]})
    source = write_as(table, tmp_path / "half.arrow")
    given = {"by": "k", "order": "t", "features": "x"}
    with pytest.raises(ValueError, match="order: expected numbers, text or times, got halffloat"):
        cylstm.score(cylstm.LSTM(1, 2, seed=0), source, tmp_path / "out", **given)


def test_integers_past_the_signed_ones(tmp_path):
    column = pa.array([[2**63 + 1], [1], [2**64 - 1]], pa.list_(pa.uint64()))
    source = write(tmp_path / "in.parquet", {"id": [1, 2, 3], "t": column})
    summary = cylstm.score(tagger(), source, tmp_path / "out", on_error="skip")
    assert (summary.predictions, summary.skipped) == (1, 2)
    assert same_bits(predictions(tmp_path / "out"), [alone(tagger(), [1])])
    lines = (tmp_path / "out" / "_skipped" / "part-000000.jsonl").read_text().splitlines()
    assert "got 9223372036854775809" in json.loads(lines[0])["reason"]


def test_names_and_row_groups_of_any_kind(rng, tmp_path):
    tokens = random_tokens(rng, 400)
    columns = {"tökens.字": tokens, "ключ": np.arange(400), "🙂": ["é"] * 400}
    source = write(tmp_path / "in.parquet", columns, row_group_size=1)
    cylstm.score(tagger(), source, tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    assert table.column_names == ["ключ", "🙂", "prediction"]
    assert table.column("ключ").to_pylist() == list(range(400))
    assert same_bits(predictions(tmp_path / "out"), [alone(tagger(), one) for one in tokens])


def test_a_column_twice_is_refused(tmp_path):
    column = pa.array([[1, 2]])
    pq.write_table(pa.Table.from_arrays([column, column], ["t", "t"]), tmp_path / "in.parquet")
    with pytest.raises(ValueError, match="columns of different names, got 't' twice"):
        cylstm.score(tagger(), tmp_path / "in.parquet", tmp_path / "out")


def test_a_page_that_its_checksum_tells_is_damaged(rng, tmp_path):
    """Each byte of a row group's data, changed, is told of, and no row of it is written."""
    tokens = random_tokens(rng, 300)
    options = {"write_page_checksum": True, "compression": "none", "row_group_size": 100}
    source = write(tmp_path / "in.parquet", {"tokens": tokens}, **options)
    good = source.read_bytes()
    group = pq.read_metadata(source).row_group(1).column(0)
    begin = group.dictionary_page_offset
    chance = random.Random(5)
    expected = [alone(tagger(), one) for one in tokens[:100]]
    for n in range(30):
        damaged = bytearray(good)
        damaged[begin + chance.randrange(group.total_compressed_size)] ^= 1 << chance.randrange(8)
        source.write_bytes(damaged)
        with pytest.raises((ValueError, OSError), match=r"in\.parquet"):
            cylstm.score(tagger(), source, tmp_path / f"{n}", part_rows=50)
        assert same_bits(predictions(tmp_path / f"{n}"), expected)


def test_files_of_other_columns_are_refused(rng, tmp_path):
    write(tmp_path / "in" / "a.parquet", {"tokens": random_tokens(rng, 10)})
    write(tmp_path / "in" / "b.parquet", {"words": random_tokens(rng, 10)})
    with pytest.raises(ValueError, match=r"b\.parquet: expected the columns of .*'tokens'"):
        cylstm.score(tagger(), tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in" / "b.parquet", {"tokens": [["x"]]})
    with pytest.raises(ValueError, match=r"b\.parquet: column 'tokens': expected list"):
        cylstm.score(tagger(), tmp_path / "in", tmp_path / "out")


def test_an_input_of_no_rows(tmp_path):
    columns = {"id": pa.array([], pa.int64()), "tokens": pa.array([], pa.list_(pa.int64()))}
    source = write(tmp_path / "in.parquet", columns)
    for _ in range(2):
        assert cylstm.score(tagger(), source, tmp_path / "out").predictions == 0
    table = pq.read_table(tmp_path / "out")
    assert (table.num_rows, table.column_names) == (0, ["id", "prediction"])


def test_a_full_disk_can_be_resumed_from(rng, tmp_path, monkeypatch):
    source = write(tmp_path / "in.parquet", {"tokens": random_tokens(rng, 300)})
    cylstm.score(tagger(), source, tmp_path / "whole", part_rows=30)
    real, left = os.fsync, [9]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cylstm.score(tagger(), source, tmp_path / "out", part_rows=30)
    monkeypatch.undo()
    cylstm.score(tagger(), source, tmp_path / "out", part_rows=30)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_limit_is_the_first_so_many(rng, tmp_path):
    model, tokens = tagger(), random_tokens(rng, 100)
    source = write(tmp_path / "in.parquet", {"tokens": tokens}, row_group_size=9)
    cylstm.score(model, source, tmp_path / "out", limit=33, part_rows=10)
    assert same_bits(predictions(tmp_path / "out"), [alone(model, t) for t in tokens[:33]])


def test_memory_does_not_grow_with_the_row_group(rng, tmp_path):
    """One row group of 64 MB of numbers, of which outputs of 1 GB are made."""
    lstm = cylstm.LSTM(1, 32, seed=0)
    lstm.save(tmp_path / "model.safetensors")
    rows, steps = 20_000, 400
    values = pa.array(rng.standard_normal(rows * steps))
    column = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * steps, pa.int32()), values)
    write(tmp_path / "in.parquet", {"x": column}, row_group_size=rows)
    code = (
        "import sys, cylstm;"
        "cylstm.score(*sys.argv[1:4], memory='600MB', threads=2);"
        # Not getrusage's: that begins with what the process had that started this one.
        "status = open('/proc/self/status').read();"
        "print(status.split('VmHWM:')[1].split()[0])"
    )
    names = ("model.safetensors", "in.parquet", "out")
    arguments = [str(tmp_path / name) for name in names]
    command = [sys.executable, "-I", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    assert int(done.stdout) * 1024 < 6 * 10**8
