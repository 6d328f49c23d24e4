"""The kernels on every instruction set that this CPU has: accuracy of the activations, the LSTM
against its reference, and the choice among the sets.
"""

import os
import subprocess
import sys
from functools import partial

import mpmath
import numpy as np
import pytest

from cylstm.core import kernels as _kernels
from cylstm.core.cell import Cell
from reference import assert_close, assert_gradients_close, random_case

WORST_ULP = 4
GRADIENTS_OF_DTYPE = {"float32": 5e-5, "float64": 1e-11}
MANY = 2_000_003  # a prime: the step between the patterns that are tried

isas = pytest.mark.parametrize("isa", _kernels.ISAS)


def every_kind_of_number(dtype):
    """Floats spread evenly over all bit patterns: every exponent, subnormals, both signs."""
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    step = np.iinfo(unsigned).max // MANY
    numbers = (np.arange(MANY, dtype=unsigned) * unsigned.type(step)).view(dtype)
    active = np.linspace(-110, 110, MANY) if dtype == "float32" else np.linspace(-760, 760, MANY)
    near = np.linspace(-3, 3, MANY)
    return np.concatenate([numbers[np.isfinite(numbers)], active, near]).astype(dtype)


def exact(name, x):
    """In a wider float, by formulas that lose nothing near zero or far from it."""
    wide = x.astype(np.longdouble)
    if name == "tanh":
        return np.tanh(wide)
    e = np.exp(-np.abs(wide))
    return np.where(wide < 0, e, 1) / (1 + e)


def error_in_ulp(actual, expected):
    ulp = np.spacing(np.abs(expected.astype(actual.dtype)))
    return np.max(np.abs(actual - expected) / ulp)


@isas
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_accuracy_over_the_whole_range(capsys, isa, dtype, name):
    if np.finfo(np.longdouble).nmant <= np.finfo(dtype).nmant:
        pytest.skip("no wider float here to compare with")
    x = every_kind_of_number(dtype)
    y = _kernels.activate((name, 0, 0), x, isa)
    worst = error_in_ulp(y, exact(name, x))
    with capsys.disabled():
        print(f" [{name} {dtype} {isa}: {worst:.2f} ulp]", end="")
    assert worst <= WORST_ULP
    assert np.min(y) >= (0 if name == "sigmoid" else -1)
    assert np.max(y) <= 1


@isas
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_accuracy_against_mpmath(rng, isa, dtype, name):
    x = np.concatenate([rng.uniform(-s, s, 300) for s in (1e-8, 0.1, 1, 20, 700)]).astype(dtype)
    with mpmath.workdps(60):
        of = mpmath.tanh if name == "tanh" else lambda v: 1 / (1 + mpmath.exp(-v))
        y = _kernels.activate((name, 0, 0), x, isa)
        expected = [of(mpmath.mpf(float(v))) for v in x]
        ulp = np.spacing(np.array([abs(e) for e in expected], dtype))
        errors = [
            abs(mpmath.mpf(float(a)) - e) / float(u)
            for a, e, u in zip(y, expected, ulp, strict=True)
        ]
    assert max(errors) <= WORST_ULP


@isas
@pytest.mark.parametrize(
    ("spec", "at"),
    [
        (("sigmoid", 0, 0), {-np.inf: 0, np.inf: 1, 0.0: 0.5, -1e30: 0, 1e30: 1}),
        (("tanh", 0, 0), {-np.inf: -1, np.inf: 1, 0.0: 0, -1e30: -1, 1e30: 1}),
        (("relu", 0, 0), {-np.inf: 0, np.inf: np.inf, -2: 0, 3: 3}),
        (("hard_sigmoid", 0.2, 0.5), {-np.inf: 0, np.inf: 1, -2.5: 0, 2.5: 1, 0: 0.5}),
        (("hard_sigmoid", -0.5, 0.25), {-np.inf: 1, np.inf: 0, 0: 0.25}),
    ],
)
def test_special_values(isa, dtype, spec, at):
    x = np.array([*at, np.nan], dtype)
    np.testing.assert_array_equal(_kernels.activate(spec, x, isa), np.array([*at.values(), np.nan]))


@isas
def test_tanh_keeps_the_sign_of_zero(isa, dtype):
    zeros = np.array([0.0, -0.0], dtype)
    np.testing.assert_array_equal(
        np.signbit(_kernels.activate(("tanh", 0, 0), zeros, isa)), [False, True]
    )


@isas
@pytest.mark.parametrize("size", [1, 2, 3, 5, 15, 16, 17, 33])
def test_a_number_does_not_depend_on_its_place(rng, isa, dtype, size):
    x = rng.standard_normal(size).astype(dtype)
    alone = [_kernels.activate(("tanh", 0, 0), x[j : j + 1], isa)[0] for j in range(size)]
    np.testing.assert_array_equal(_kernels.activate(("tanh", 0, 0), x, isa), alone)


@pytest.fixture(params=_kernels.ISAS)
def on_isa(monkeypatch, request):
    """LSTMs made in the test compute on this instruction set."""
    monkeypatch.setattr("cylstm.family.Cell", partial(Cell, isa=request.param))


@pytest.mark.usefixtures("on_isa")
@pytest.mark.parametrize("hidden", [4, 16, 37])
def test_lstm_on_each_isa(rng, options, dtype, hidden):
    case = random_case(rng, 4, 3, [4, 0, 3], hidden_size=hidden, dtype=dtype, **options)
    assert_close(case.lstm(*case.inputs), case.expected())
    exact_case = case.astype("float64")
    assert_gradients_close(case.gradients(), exact_case.gradients(), GRADIENTS_OF_DTYPE[dtype])


@pytest.mark.usefixtures("on_isa")
@pytest.mark.parametrize("inputs", [64, 65, 640])
def test_wide_layers_on_each_isa(rng, monkeypatch, dtype, inputs):
    """Sizes at which backward takes W_ih as it is, a product in parts, gradients by some rows."""
    config = {"input_size": inputs, "hidden_size": 128, "num_layers": 2, "bidirectional": True}
    case = random_case(rng, 3, 4, [3, 1, 2, 3], dtype=dtype, **config)
    gradients = case.gradients()
    monkeypatch.setattr("cylstm.family.Cell", partial(Cell, product="blas"))
    expected = case.astype("float64").gradients()
    assert_gradients_close(gradients, expected, GRADIENTS_OF_DTYPE[dtype])


@pytest.mark.skipif(len(_kernels.ISAS) == 1, reason="there is one instruction set")
def test_gradients_agree_between_isas(rng, monkeypatch, options):
    found = []
    for isa in _kernels.ISAS:
        monkeypatch.setattr("cylstm.family.Cell", partial(Cell, isa=isa))
        same = np.random.default_rng(7)
        found.append(random_case(same, 4, 3, hidden_size=37, **options).gradients())
    for gradients in found[1:]:
        assert_gradients_close(gradients, found[0], 1e-13)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-I", "-c", code],  # not from the source folder
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@isas
def test_environment_forces_an_isa(isa):
    done = run_python("from cylstm.core import kernels; print(kernels.ISA)", CYLSTM_ISA=isa)
    assert done.stdout == f"{isa}\n"


def test_environment_names_an_unknown_isa():
    done = run_python("import cylstm", CYLSTM_ISA="mmx")
    assert done.returncode == 1
    assert "CYLSTM_ISA: expected one of" in done.stderr
    assert "'mmx'" in done.stderr


def test_unknown_isa():
    with pytest.raises(ValueError, match=r"isa: expected one of .*'mmx'"):
        _kernels.activate(("tanh", 0, 0), np.zeros(1), "mmx")
