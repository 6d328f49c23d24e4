"""Input files: CSV that is not what it seems, names like addresses, and what is held of them."""

import json
import os

import numpy as np
import pytest

import cylstm

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from cylstm.jobs import readers, stored  # noqa: E402
from cylstm.jobs.files import InputFile  # noqa: E402

LSTM = cylstm.LSTM(1, 2, seed=0)
STEPS = {"by": "id", "features": "x"}


def score(source, target, **options):
    cylstm.score(LSTM, source, target, **options)
    return pq.read_table(target)


def same_bits(found, expected):
    return np.array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))


# CSV -------------------------------------------------------------------------------------------

LINES = "".join(f"{n},0.5,{'-' * 100}\n" for n in range(12_000))  # more than is read at once


def csv(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("id,x\nmüller,1\n", "latin1", r"line 2, column 'id': expected UTF-8, got other bytes"),
        (
            f"id,x,more\n{LINES.replace(',0.5', 'a,0.5')}müller,1,\n",
            "latin1",
            r"line 12002, column 'id': expected UTF-8, got other bytes: convert",
        ),
        ("größe,id,x\n1,1,1\n", "latin1", "expected UTF-8, got other bytes: convert the file"),
        ("id,x\n1,1\n", "utf-16", "expected UTF-8, got UTF-16: convert the file"),
        ("id;x\n1;1\n", "utf-8", "expected columns with commas between, got 'id;x'"),
        (f"id,x\n{'a' * 3_000_000},1\n", "utf-8", "expected lines of up to 1,048,576 bytes"),
        (
            f"id,x\n1,1\n{'a' * 3_000_000},1\n",
            "utf-8",
            r"from row 1 on: expected lines of up to 1,048,576 bytes, got a longer one.*Parquet",
        ),
        (
            f"id,x,more\n{LINES}new,1,\n",
            "utf-8",
            r"line 12002, column 'id': expected int64, got 'new': .*Parquet has types",
        ),
    ],
)
def test_csv_that_is_refused(tmp_path, text, encoding, message):
    source = csv(tmp_path / "in.csv", text, encoding)
    with pytest.raises(ValueError, match=rf"in\.csv: cannot be read.*{message}") as told:
        score(source, tmp_path / "out", **STEPS)
    assert "\n" not in str(told.value)


def test_text_that_is_not_read_may_be_any(tmp_path):
    source = csv(tmp_path / "in.csv", "id,x,name\n1,0.5,müller\n", "latin1")
    assert score(source, tmp_path / "out", **STEPS).column("id").to_pylist() == [1]


def test_text_is_kept_as_it_is(tmp_path):
    names = ["müller", " 字", "🙂", "NA", ""]
    text = "id,x\n" + "".join(f'"{name}",0.5\n' for name in names)
    found = score(csv(tmp_path / "in.csv", text), tmp_path / "out", **STEPS)
    assert found.column("id").to_pylist() == names


@pytest.mark.parametrize("first", ["1", ""])
def test_features_are_numbers_whatever_the_first_lines_show(tmp_path, first):
    text = f"id,x,more\n{LINES.replace('0.5', first)}-1,0.25,\n-1,2,\n"
    source = csv(tmp_path / "in.csv", text)
    found = score(source, tmp_path / "out", on_error="skip", steps="last", **STEPS)
    assert len(found) == (12_001 if first else 1)
    assert found.column("id")[-1].as_py() == -1
    expected = LSTM(np.array([[0.25], [2]], np.float32))[0][-1]
    assert same_bits(found.column("prediction")[-1].as_py(), expected)


def test_tokens_after_lines_of_none(tmp_path):
    from cylstm.layers import Embedding, Sequential

    model = Sequential(Embedding(9, 2, seed=0), cylstm.LSTM(2, 3, seed=1))
    source = csv(tmp_path / "in.csv", f"id,x,more\n{LINES.replace('0.5', '')}-1,7,\n")
    cylstm.score(model, source, tmp_path / "out", on_error="skip", **STEPS)
    found = pq.read_table(tmp_path / "out").column("prediction").to_pylist()
    assert same_bits(found, model(np.array([7])))


# Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrows", "csv"])
@pytest.mark.parametrize("name", ["file:c", "s3:c", "a b%20", "[a]", "-x", "~"])
def test_names_like_addresses(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    table, name = pa.table({"id": [1, 2], "x": [0.5, 0.25]}), f"{name}.{kind}"
    if kind == "parquet":
        pq.write_table(table, os.path.abspath(name))
    elif kind == "csv":
        csv(tmp_path / name, "id,x\n1,0.5\n2,0.25\n")
    else:
        opener = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with pa.OSFile(name, "wb") as sink, opener(sink, table.schema) as writer:
            writer.write_table(table)
    cylstm.score(LSTM, name, "file:out", **STEPS)
    assert (tmp_path / "file:out" / "part-000000.parquet").exists()


@pytest.mark.parametrize("path", ["s3://bucket/in.parquet", "hdfs://host/*.parquet"])
def test_addresses_are_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for source in (path, [path]):
        with pytest.raises(ValueError, match="source: expected files of this machine, got"):
            score(source, "out", **STEPS)
    source = csv(tmp_path / "in.csv", "id,x\n1,0.5\n")
    with pytest.raises(ValueError, match="target: expected a folder of this machine, got s3:"):
        score(source, "s3://bucket/out", **STEPS)
    assert os.listdir(tmp_path) == ["in.csv"]


# What is held ----------------------------------------------------------------------------------

LONG = 20_000  # bytes of a text, which comes a thousand times
SLACK = 2**20


def texts(count=1000, kinds=5):
    return [f"{n % kinds}" * LONG for n in range(count)]


def blocks_of(path, kind, names=("id", "x")):
    file = InputFile(str(path), path.name, kind)
    return file.schema(), [block.batch for block in file.blocks(0, names, file.schema())]


@pytest.mark.parametrize("encoding", ["coded", "half", "categories", "lists", "plain"])
@pytest.mark.parametrize("row_group_size", [100, 10_000])
def test_a_block_of_parquet_has_few_rows_of_long_texts(tmp_path, encoding, row_group_size):
    """A dictionary in the file holds a text once, and rows hold it any number of times."""
    ids = [None, *texts()]
    column, options = pa.array(ids), {}
    if encoding == "half":  # the dictionary ends where it has become too large
        column = pa.array(ids + [f"{n:06}" * (LONG // 6) for n in range(200)])
        options = {"dictionary_pagesize_limit": 2 * LONG * 5}
    elif encoding == "categories":
        column = column.dictionary_encode()
    elif encoding == "lists":
        column = pa.array([[], *([text] for text in texts())])
    elif encoding == "plain":
        options = {"use_dictionary": False}
    table = pa.table({"id": column, "x": [[0.5]] * len(column)})
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, row_group_size=row_group_size, **options)
    schema, found = blocks_of(path, "parquet")
    assert max(batch.nbytes for batch in found) < readers.BLOCK_BYTES + SLACK
    assert len(found) < 20 + len(column) * LONG / readers.BLOCK_BYTES * 3
    read = pa.Table.from_batches(found)
    assert schema.field("id").type == read.schema.field("id").type
    assert not pa.types.is_dictionary(schema.field("id").type)
    assert read.column("id").combine_chunks().equals(stored.values_of(column))


def test_a_block_of_arrow_has_few_rows_of_long_texts(tmp_path):
    codes = pa.array(texts()).dictionary_encode()
    table = pa.table({"id": codes, "x": [[0.5]] * len(codes)})
    with (
        pa.OSFile(str(tmp_path / "in.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    _, found = blocks_of(tmp_path / "in.arrow", "arrow")
    assert max(batch.nbytes for batch in found) < readers.BLOCK_BYTES + SLACK
    assert pa.Table.from_batches(found).column("id").combine_chunks().equals(pa.array(texts()))


@pytest.mark.parametrize("kind", ["text", "categories", "bytes", "lists", "structs", "views"])
def test_a_part_counts_what_its_keys_take(tmp_path, kind):
    from cylstm.jobs.parts import PART_BYTES

    keys = {
        "text": lambda: pa.array(texts()),
        "categories": lambda: pa.array(texts()).dictionary_encode(),
        "bytes": lambda: pa.array([text.encode() for text in texts()], pa.binary(LONG)),
        "lists": lambda: pa.array([[text[: LONG // 2]] * 2 for text in texts()]),
        "structs": lambda: pa.array([{"a": text} for text in texts()]),
        "views": lambda: pa.array(texts()).cast(pa.string_view()),
    }[kind]()
    table = pa.table({"key": keys, "x": [[0.5]] * len(keys)})
    pq.write_table(table, tmp_path / "in.parquet")
    cylstm.score(LSTM, tmp_path / "in.parquet", tmp_path / "out", features="x", keys="key")
    parts = sorted((tmp_path / "out").glob("part*"))
    tables = [pq.read_table(part) for part in parts]
    assert max(part.column("key").nbytes for part in tables) < PART_BYTES + SLACK
    assert pa.concat_tables(tables).column("key").combine_chunks().equals(stored.values_of(keys))


def test_categories_are_read_as_what_they_are(tmp_path):
    """As pandas writes them; in one file, and plain in another; of keys, groups and tokens."""
    from cylstm.layers import Embedding, Sequential

    model = Sequential(Embedding(9, 2, seed=0), cylstm.LSTM(2, 3, seed=1))
    columns = {"id": pa.array(["a", "a", "b"]), "t": pa.array([1, 5, 7])}
    for name, coded in (("in/a.parquet", True), ("in/b.parquet", False)):
        own = {n: column.dictionary_encode() if coded else column for n, column in columns.items()}
        own["id"] = own["id"] if coded else pa.array(["c", "c", "d"])
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(own), tmp_path / name)
    given = {"by": "id", "features": "t", "steps": "last"}
    cylstm.score(model, tmp_path / "in", tmp_path / "out", **given)
    found = pq.read_table(tmp_path / "out")
    assert found.column("id").to_pylist() == ["a", "b", "c", "d"]
    expected = [model(np.array([1, 5]))[-1], model(np.array([7]))[0]] * 2
    assert same_bits(found.column("prediction").to_pylist(), expected)
    table = pa.table({name: column.dictionary_encode() for name, column in columns.items()})
    scorer = cylstm.Scorer(model, **given)
    assert scorer(table).equals(found.slice(0, 2).cast(scorer(table).schema))


def test_sequences_of_a_dictionary(tmp_path):
    lists = pa.array([[0.5], [0.25, 1.0]])
    table = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1]), lists)})
    with (
        pa.OSFile(str(tmp_path / "in.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    found = score(tmp_path / "in.arrow", tmp_path / "out", on_error="skip", steps="last")
    expected = [LSTM(np.array(lists[k].as_py(), np.float32)[:, None])[0][-1] for k in (1, 0, 1)]
    assert same_bits(found.column("prediction").to_pylist(), expected)


def test_batches_are_as_large_as_the_memory_is_enough_for(tmp_path, monkeypatch):
    """By default; where a batch has an effect on the bits, they are always the same."""
    from cylstm.jobs import run
    from cylstm.jobs.memory import Budget
    from cylstm.jobs.options import Options
    from cylstm.predict.batches import LEAST_TOKENS, MOST_TOKENS

    pq.write_table(pa.table({"x": [[0.5]]}), tmp_path / "in.parquet")
    job = run.Job(LSTM, tmp_path / "in.parquet", tmp_path / "out", Options(features=("x",)))

    def tokens(memory, batch_tokens=None):
        with run.scorers_of(job, run.Running(memory, 2, batch_tokens, None)) as scorers:
            return scorers.batch_tokens, Budget.least_of(job.predictor, scorers)

    most, needed = tokens("2GB")
    assert most == MOST_TOKENS
    assert tokens(needed)[0] == MOST_TOKENS
    assert tokens(needed - 1)[0] == LEAST_TOKENS
    assert tokens(needed - 1)[1] < needed
    assert tokens("2GB", 7)[0] == 7
    monkeypatch.setattr(job.predictor, "is_exact", False)
    assert tokens("2GB")[0] == LEAST_TOKENS


def test_sizes_of_values():
    arrays = [
        pa.array([[b"ab", None], None, [b"c"]]),
        pa.array([[("ab", 1.0)], None, []], pa.map_(pa.string(), pa.float64())),
        pa.array([{"a": "abc", "b": 1}, None, {"a": "", "b": 2}]),
        pa.array([["abc"], [None], [""]], pa.list_(pa.string(), 1)),
        pa.array([None, None, None]),
        pa.array([b"ab", b"cd", None], pa.binary(2)),
    ]
    assert stored.sizes_of(arrays[0]).tolist() == [2, 0, 1]
    assert (stored.sizes_of(arrays[1]) >= [10, 0, 0]).all()
    assert (stored.sizes_of(arrays[2]) >= [11, 8, 8]).all()
    assert stored.sizes_of(arrays[3]).tolist() == [3, 0, 0]
    assert stored.sizes_of(arrays[4]).tolist() == [0, 0, 0]
    assert stored.sizes_of(arrays[5]).tolist() == [2, 2, 2]
    for array in arrays:
        whole, later = stored.sizes_of(array), stored.sizes_of(array.slice(1))
        assert later.tolist() == whole[1:].tolist()


def test_rows_that_are_counted_in_a_dictionary_are_told_of_by_place(tmp_path):
    """A bad row's number is that of the file, however its row group was cut into blocks."""
    rows = [[0.5]] * 1000
    rows[777] = [float("nan")]
    pq.write_table(pa.table({"id": texts(), "x": rows}), tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out", on_error="skip", keys=[])
    (skipped,) = (tmp_path / "out" / "_skipped").glob("*")
    assert json.loads(skipped.read_text())["row"] == 777
