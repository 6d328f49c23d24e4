"""The parts of the benchmarks that compute rather than measure; no time is asserted."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import reference as slow_reference
from cylstm.core import kernels

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("no benchmarks beside these tests", allow_module_level=True)
spec = importlib.util.spec_from_file_location(
    "benchmarks",
    ROOT / "benchmarks/__init__.py",
    submodule_search_locations=[str(ROOT / "benchmarks")],
)
sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)

from benchmarks.benchmarks import common, limit, reference  # noqa: E402
from benchmarks.benchmarks.common import Shape, make_problem  # noqa: E402
from benchmarks.peers import contest, environment, memory, report, tables, whole  # noqa: E402
from benchmarks.peers.libraries import OURS, reordered  # noqa: E402

# A kilobyte can be read in a microsecond, more of it ten times slower; 4 FLOPs a nanosecond.
MACHINE = limit.Machine(
    threads=1,
    flops=4e9,
    levels=(limit.Level("L1", 1000, 1e9), limit.Level("memory", 1 << 62, 1e8)),
)
SHAPES = [
    Shape(3, 3, 2, 3),
    Shape(3, 3, 2, 3, 2, 2),
    Shape(3, 3, 2, 3, ragged=True),
    Shape(3, 3, 2, 3, 2, 2, ragged=True),
]


# The machine's limit


@pytest.mark.parametrize(
    ("size", "seconds"), [(0, 0), (500, 0.5e-6), (1000, 1e-6), (1100, 2e-6), (2000, 11e-6)]
)
def test_reading_takes_as_much_as_fits_from_the_nearest_cache(size, seconds):
    assert limit.read_seconds(MACHINE, size) == pytest.approx(seconds)


def test_a_product_takes_its_flops_or_the_reading_of_its_weights():
    assert limit.product_seconds(MACHINE, 1, 250) == pytest.approx(1e-6)  # reads 1000 bytes
    assert limit.product_seconds(MACHINE, 80, 250) == pytest.approx(10e-6)  # 40,000 FLOPs


def test_fewer_bytes_are_read_in_less_time():
    few = replace(MACHINE, weight_bytes=1)
    assert limit.product_seconds(few, 1, 1000) == pytest.approx(1e-6)
    assert limit.product_seconds(few, 80, 1000) == pytest.approx(40e-6)


@pytest.mark.parametrize("isa", kernels.ISAS)
@pytest.mark.parametrize("weights", limit.WEIGHT_BYTES)
def test_products_of_each_kind_are_counted(tmp_path, isa, weights):
    program = limit.compiled(isa, str(tmp_path), weights)
    done = subprocess.run([program, "0.01", "4096"], capture_output=True, check=True)
    products, read = map(float, done.stdout.split())
    assert products > 0
    assert read > 0


def test_one_step_reads_both_matrices():
    stream = Shape(1, 1, 2, 5)  # 40 + 100 weights
    assert limit.least_seconds(stream, MACHINE) == pytest.approx(560e-9)


def test_steps_of_a_sequence_each_read_the_recurrent_weights():
    sequence = Shape(10, 1, 2, 5)  # 100 weights, read ten times; x's product by its 800 FLOPs
    assert limit.least_seconds(sequence, MACHINE) == pytest.approx(10 * 400e-9 + 200e-9)


def test_padding_counts_as_nothing():
    ragged = Shape(6, 100, 2, 5, ragged=True)
    steps = sum(ragged.lengths)
    flops = 2 * steps * (40 + 100)
    assert limit.least_seconds(ragged, MACHINE) == pytest.approx(flops / 4e9)


def test_training_a_large_batch_takes_three_times_the_flops():
    shape = Shape(6, 100, 2, 5)
    forward = limit.least_seconds(shape, MACHINE)
    assert limit.least_seconds(shape, MACHINE, training=True) == pytest.approx(3 * forward)


def test_two_threads_share_the_work_and_the_weights():
    two = replace(MACHINE, threads=2)
    assert limit.product_seconds(two, 80, 250) == pytest.approx(5e-6)
    assert limit.read_seconds(two, 2000) == pytest.approx(1e-6)  # a nearer cache for each half


def test_layers_and_directions_add_up():
    stacked, first, second = Shape(9, 40, 2, 5, 2, 2), Shape(9, 40, 2, 5), Shape(9, 40, 10, 5)
    parts = 2 * (limit.least_seconds(first, MACHINE) + limit.least_seconds(second, MACHINE))
    assert limit.least_seconds(stacked, MACHINE) == pytest.approx(parts)


# The reference


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_are_those_of_the_slow_reference(shape):
    problem = make_problem(shape, "float64", training=True)
    y, (h_n, c_n) = slow_reference.forward(
        problem.weights,
        problem.x,
        (problem.h_0, problem.c_0),
        problem.lengths,
        num_layers=shape.layers,
        bidirectional=shape.directions == 2,
    )
    actual = reference.outputs(problem)
    for name, right in {"y": y, "h_n": h_n, "c_n": c_n}.items():
        np.testing.assert_allclose(actual[name], right.astype(float), atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_differences(shape):
    problem = make_problem(shape, "float64", training=True)
    arrays = {"x": problem.x, "h_0": problem.h_0, "c_0": problem.c_0, **problem.weights}

    def loss():
        return np.vdot(reference.outputs(problem)["y"], problem.grad_y)

    expected = slow_reference.numeric_gradient(loss, arrays)
    actual = reference.gradients(problem)
    assert actual.keys() == expected.keys()
    for name, right in expected.items():
        np.testing.assert_allclose(actual[name], right, atol=1e-9)


def test_the_frozen_grid_has_every_cell_once():
    names = [str(shape) for shape in common.INFERENCE]
    assert len(set(names)) == len(names) == 21
    assert len({str(shape) for shape in common.TRAINING}) == len(common.TRAINING) == 12


# Agreement

PROBLEM = make_problem(Shape(3, 3, 2, 3))
RIGHT = contest.expected_results(PROBLEM, training=False)


def wrong_results():
    """Results with the mistakes that libraries make."""
    swapped = {name: reordered(w, "iofg") for name, w in PROBLEM.weights.items()}
    return {
        "another order of gates": reference.outputs(replace(PROBLEM, weights=swapped)),
        "an output missing": {"y": RIGHT["y"]},
        "batch first": RIGHT | {"y": RIGHT["y"].swapaxes(0, 1)},
        "half precision": {name: array.astype(np.float16) * 1.002 for name, array in RIGHT.items()},
        "not a number": RIGHT | {"y": np.full_like(RIGHT["y"], np.nan)},
    }


@pytest.mark.parametrize("mistake", wrong_results())
def test_wrong_results_are_refused(mistake):
    assert contest.disagreement(wrong_results()[mistake], RIGHT)


def test_results_in_float32_agree():
    rounded = {name: array.astype(np.float32) for name, array in RIGHT.items()}
    assert contest.disagreement(rounded, RIGHT) is None


class FakePeer:
    """One way right, one wrong, one that fails; a time is asked of the right one alone."""

    library = "fake"

    def __init__(self, results):
        self.results, self.asked = results, []

    def ask(self, method, *arguments):
        self.asked.append((method, arguments[0]))
        return {"prepare": self.results, "trial": 1e-3, "keep": None}[method]


def test_only_ways_that_agree_are_timed():
    wrong = RIGHT | {"y": RIGHT["y"] + 0.01}
    peer = FakePeer({"wrong": wrong, "failing": "ValueError: no", "right": RIGHT})
    entry = contest.enter(peer, PROBLEM, False, RIGHT, 0.0)
    assert entry.way == "right"
    assert entry.refused.keys() == {"wrong", "failing"}
    assert [which for method, which in peer.asked if method == "trial"] == ["right"]


def test_a_library_that_is_wrong_in_every_way_is_left_out():
    entry = contest.enter(FakePeer({"only": {"y": RIGHT["y"]}}), PROBLEM, False, RIGHT, 0.0)
    assert entry.startswith("only: gives")


# A contest, and what is told of it


@pytest.fixture(scope="module")
def run():
    """A run of cylstm alone, in its own process, beside a made-up peer; another is absent."""
    run = report.new_run()
    pythons = {OURS: sys.executable, "nonesuch": sys.executable}
    with contest.peers_of(pythons, 1) as (peers, absent):
        run["absent"] = {"keras": absent["nonesuch"]}
        run["versions"] = {peer.library: peer.versions for peer in peers}
        for training in (False, True):
            for shape in (Shape(1, 2, 3, 4), *SHAPES):
                entries, failed = contest.contest(shape, training, peers, 2, 0.0)
                times = [(2 * low, 2 * middle) for low, middle in entries[OURS].rounds]
                entries["jax"] = contest.Entry("jit", {"jit": 1.0}, {}, times)
                least = limit.least_seconds(shape, MACHINE, training)
                row = report.result(shape, training, MACHINE, least, entries, failed)
                run["results"].append(row)
    return json.loads(json.dumps(run))


def test_a_process_gives_times_versions_and_says_what_is_absent(run):
    assert run["versions"][OURS]["cylstm"] == importlib.metadata.version("cylstm")
    assert "ModuleNotFoundError" in run["absent"]["keras"]
    for row in run["results"]:
        assert row["failed"] == {}
        assert len(row["libraries"][OURS]["rounds"]) == 2
        assert row["ratio"] == pytest.approx(2)
        assert row["best"] == "jax"


def test_the_tables_hold_every_cell(run, tmp_path):
    report.write([run], tmp_path)
    text = (tmp_path / "peers.md").read_text()
    for row in run["results"]:
        assert f"| {row['cell']} " in text
    assert "## Training: forward and backward, 1 thread" in text
    assert "Absent: Keras" in text
    assert (tmp_path / "peers.svg").read_text().count("<svg") == 1


def test_the_memory_of_a_step_is_told(run, tmp_path):
    shape = Shape(20, 3, 5, 40)
    found = memory.peaks(shape, {OURS: sys.executable}, 2)
    assert found[OURS] > 4 * 20 * 3 * 6 * 40  # the tape
    rows = [{"cell": str(shape), "bytes": found | {"pytorch": 2 * found[OURS]}}]
    report.write([run, report.new_run() | {"memory": rows}], tmp_path)
    assert "| 0.50 |" in (tmp_path / "peers.md").read_text().replace("  ", "")


def test_the_readme_is_rewritten_between_its_marks(run, tmp_path):
    begin, end = report.MARKS
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):
        report.write_readme([run], tmp_path / "docs", readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("(docs/peers.svg)") == 1
    with pytest.raises(ValueError, match="expected the marks"):
        report.between_marks("no marks", "new")


def test_a_row_without_peers_has_no_ratio(run):
    row = run["results"][0] | {"best": None, "ratio": None}
    assert " - " in report.line(row, [OURS])


def test_requirements_are_pinned():
    lines = environment.REQUIREMENTS.read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))


def test_the_pages_have_the_tables_that_were_kept():
    assert tables.stale() == []


def test_a_stale_table_is_found_and_renewed(tmp_path):
    tables.keep(tmp_path, "whole", ["a", "b"], [["x", "1.10"], ["y", "2"]])
    page = "before\n<!-- whole:begin -->\n\n| old |\n\n<!-- whole:end -->\nafter\n"
    made = tables.renewed(page, "whole", tmp_path)
    assert made != page
    assert "1.10" in made
    assert "old" not in made
    assert made.startswith("before\n")
    assert made.endswith("\nafter\n")
    assert tables.renewed(made, "whole", tmp_path) == made
    with pytest.raises(ValueError, match="expected the marks"):
        tables.renewed("no marks", "whole", tmp_path)


def test_the_page_of_peers_is_made_of_what_was_kept(tmp_path, monkeypatch):
    names = ("inference", "training", "memory")
    runs = [json.loads((tables.RESULTS / f"{name}.json").read_text()) for name in names]
    monkeypatch.setattr(report, "save_plot", lambda *_: None)
    report.write(runs, tmp_path)
    assert (tmp_path / "peers.md").read_text() == (tables.ROOT / "docs/peers.md").read_text()


def test_programs_stand_side_by_side():
    step, score = ["p", 1, "1 / 2", "3 / 4", "2.00", "3.00"], ["p", 1, "5 / 6", "7 / 8", "1.3", "1"]
    row = ["p", "1", "1 / 2", "3 / 4", "2.00 / 3.00", "5 / 6", "7 / 8", "1.3 / 1"]
    assert whole.side_by_side(step, score) == row
