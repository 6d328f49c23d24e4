"""A model as a function of tables, alone and on engines: the bytes of `cylstm.score`."""

import contextlib
import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import cylstm
from cylstm.layers import Embedding, Last, Linear, Sequential

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = 50


@pytest.fixture
def job(tmp_path, rng):
    """A folder with a model, an input of three files, and what `cylstm.score` makes of them."""
    model = Sequential(
        Embedding(WORDS, 4, seed=1), cylstm.LSTM(4, 6, seed=0), Last(), Linear(6, 3, seed=2)
    )
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "in").mkdir()
    for k in range(3):
        tokens = [rng.integers(0, WORDS, rng.integers(1, 9)).tolist() for _ in range(100)]
        table = pa.table({"id": np.arange(100) + 100 * k, "tokens": tokens})
        pq.write_table(table, tmp_path / "in" / f"{k}.parquet")
    cylstm.score(model, tmp_path / "in", tmp_path / "scored")
    return tmp_path


def rows_of(folder):
    """The ids, and the bytes of the predictions, by id."""
    table = pq.read_table(folder).sort_by("id")
    predictions = np.array(table.column("prediction").to_pylist(), np.float32)
    return table.column("id").to_pylist(), predictions.tobytes()


def test_tables_batches_frames_and_dicts(job):
    pandas = pytest.importorskip("pandas")
    scorer = cylstm.Scorer(job / "model.safetensors")
    table, expected = pq.read_table(job / "in"), pq.read_table(job / "scored")
    numbers = np.array(expected.column("prediction").to_pylist(), np.float32)
    assert scorer(table).equals(expected)
    batch = table.combine_chunks().to_batches()[0].slice(7, 50)
    assert pa.Table.from_batches([scorer(batch)]).equals(expected.slice(7, 50).combine_chunks())
    frame = table.to_pandas().set_index(np.arange(300) * 2)
    found = scorer(frame)
    assert isinstance(found, pandas.DataFrame)
    assert found.index.tolist() == frame.index.tolist()
    assert np.array_equal(np.stack(found["prediction"]), numbers)
    tokens = np.array([np.array(t) for t in table.column("tokens").to_pylist()], object)
    made = scorer({"tokens": tokens})
    assert list(made) == ["prediction"]
    assert np.array_equal(made["prediction"], numbers)


def test_dicts_of_plain_arrays(rng):
    lstm = cylstm.LSTM(3, 4, seed=0)
    x = rng.standard_normal((5, 7, 3)).astype(np.float32)
    found = cylstm.Scorer(lstm)({"x": x})["prediction"]
    assert all(np.array_equal(y, lstm(own)[0]) for y, own in zip(found, x, strict=True))
    last = cylstm.Scorer(lstm, steps="last")({"x": x})["prediction"]
    assert np.array_equal(last, np.stack([y[-1] for y in found]))


def test_lists_of_any_size(job):
    scorer = cylstm.Scorer(job / "model.safetensors", fixed_size=False)
    found = scorer(pq.read_table(job / "in"))
    assert found.schema.field("prediction").type == pa.list_(pa.float32())
    expected = pq.read_table(job / "scored").column("prediction").to_pylist()
    assert found.column("prediction").to_pylist() == expected


def test_groups():
    lstm = cylstm.LSTM(1, 2, seed=0)
    scorer = cylstm.Scorer(lstm, by="id", order="time", features="x", steps="last")
    columns = {"id": [1, 1, 2], "time": [2, 1, 1], "x": [0.5, 0.25, 1.0]}
    found = scorer(pa.table(columns))
    assert found.column("id").to_pylist() == [1, 2]
    expected = lstm(np.array([[0.25], [0.5]], np.float32))[0][-1]
    assert np.array_equal(np.float32(found.column("prediction")[0].as_py()), expected)


def test_it_is_pickled_without_its_model_and_loads_it_once(job, monkeypatch):
    from cylstm.jobs import scorer as module

    scorer = cylstm.Scorer(job / "model.safetensors")
    table = pq.read_table(job / "in")
    expected = scorer(table)
    saved = pickle.dumps(scorer)
    assert len(saved) < 1000
    loads = []
    real = module.load_to_score
    monkeypatch.setattr(module, "load_to_score", lambda *given: loads.append(1) or real(*given))
    monkeypatch.setattr(module, "_loaded", {})
    assert all(pickle.loads(saved)(table).equals(expected) for _ in range(3))
    assert loads == [1]


def test_what_is_skipped_is_told_of():
    scorer = cylstm.Scorer(cylstm.LSTM(1, 2, seed=0), on_error="skip")
    with pytest.warns(UserWarning, match=r"1 skipped, the first: data, row 1, column 'x': .*null"):
        found = scorer(pa.table({"id": [1, 2, 3], "x": [[0.5], None, [1.0]]}))
    assert found.column("id").to_pylist() == [1, 3]
    with pytest.raises(ValueError, match="row 1, column 'x': expected a list, got null"):
        cylstm.Scorer(cylstm.LSTM(1, 2, seed=0))(pa.table({"x": [[0.5], None]}))
    with pytest.raises(TypeError, match="data: expected a table or batch of Arrow"):
        scorer([[0.5]])


def test_no_rows_give_no_rows(job):
    scorer = cylstm.Scorer(job / "model.safetensors")
    table = pq.read_table(job / "in").slice(0, 0)
    found = scorer(table)
    assert (found.num_rows, found.column_names) == (0, ["id", "prediction"])


def test_the_number_of_threads_is_left_alone(job):
    before = cylstm.get_num_threads()
    cylstm.Scorer(job / "model.safetensors")(pq.read_table(job / "in"))
    assert cylstm.get_num_threads() == before


ENGINES = {"ray": "ray", "dask": "dask.dataframe", "spark": "pyspark"}
GIVEN = {"ray": ["--block-rows", "50"], "dask": ["--width", "3"], "spark": []}
SECONDS = 900  # a minute on an idle machine, of which starting the engine is nearly all

# Without usage reports, over the loopback alone, and patient with a loaded machine.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(10**8),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # then the address is 127.0.0.1
    "RAY_NUM_REDIS_GET_RETRIES": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_connect_timeout_s": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "300000",
    "RAY_memory_monitor_refresh_ms": "0",  # of the machine's, which others may fill
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    # Compiled in haste, since it runs once. UsePerfData writes to /tmp, whatever TMPDIR is.
    "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData",
    "PYSPARK_PYTHON": sys.executable,
    "PYSPARK_SUBMIT_ARGS": "--driver-memory 512m --conf spark.driver.host=127.0.0.1 "
    "--conf spark.network.timeout=600s --conf spark.python.authenticate.socketTimeout=300s "
    "pyspark-shell",
    "SPARK_LOCAL_HOSTNAME": "localhost",
    "SPARK_LOCAL_IP": "127.0.0.1",
}


def why_not(engine):
    """Why an engine cannot run here, or ""."""
    try:
        found = importlib.util.find_spec(ENGINES[engine])
    except ModuleNotFoundError:
        found = None
    if found is None:
        return f"{engine} is not installed"
    return "java is not installed" if engine == "spark" and not shutil.which("java") else ""


@pytest.fixture
def temporary():
    """A folder of a short name, since those of sockets within it have a limit."""
    with tempfile.TemporaryDirectory(prefix="cy", ignore_cleanup_errors=True) as folder:
        yield folder


def end_those_of(folder):
    """End processes whose environment names a folder, where the system tells that (Linux)."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}".encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_give_the_same_bytes(job, temporary, engine):
    """Its example, on two local workers."""
    if why_not(engine):
        pytest.skip(why_not(engine))
    program = str(EXAMPLES / f"score_{engine}.py")
    command = [sys.executable, program, "model.safetensors", "in", "out", *GIVEN[engine]]
    own = QUIET | {"TMPDIR": temporary, "SPARK_LOCAL_DIRS": temporary}
    with open(job / "told.txt", "w+") as told:  # no pipe: a process left behind would hold it
        process = subprocess.Popen(
            command, cwd=job, env=os.environ | own, stdout=told, stderr=subprocess.STDOUT
        )
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
            end_those_of(temporary)
        told.seek(0)
        assert process.returncode == 0, told.read()
    assert rows_of(job / "out") == rows_of(job / "scored")
