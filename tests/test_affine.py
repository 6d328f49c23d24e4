"""The affine map on packed weights: against float64, and the promise of the same bits."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cylstm
from cylstm.core.affine import Affine
from cylstm.core.kernels import ISAS, PRODUCT
from cylstm.core.weights import Version
from cylstm.train import Linear
from threads import threads_as_before

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}  # of the largest value, for each 16 summands
SIZES = st.integers(1, 70) | st.sampled_from([127, 128, 129, 300, 520])
WAYS = [(isa, "packed") for isa in ISAS] + [(ISAS[0], "blas")]


def arrays(seed, rows, inputs, outputs, dtype, bias):
    rng = np.random.default_rng(seed)
    shapes = (rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)
    x, weight, b, grad_y = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return x, weight, b if bias else None, grad_y


def assert_near(actual, expected, dtype, summands):
    most = TOLERANCE[dtype] * (1 + summands / 16) * max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=most)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@given(
    rows=st.integers(0, 30) | st.sampled_from([191, 192, 193, 400]),
    inputs=SIZES,
    outputs=SIZES,
    dtype=st.sampled_from(["float32", "float64"]),
    bias=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
)
def test_map_and_gradients(way, rows, inputs, outputs, dtype, bias, threads):
    x, weight, b, grad_y = arrays(rows, rows, inputs, outputs, dtype, bias)
    exact = [None if a is None else a.astype("float64") for a in (x, weight, b, grad_y)]
    affine = Affine(weight, b, Version(), isa=way[0], product=way[1])
    with threads_as_before():
        cylstm.set_num_threads(threads)
        y, found = affine.run(x), affine.backward(x, grad_y)
    assert_near(y, exact[0] @ exact[1].T + (exact[2] if bias else 0), dtype, inputs)
    expected = exact[3] @ exact[1], exact[3].T @ exact[0], exact[3].sum(axis=0)
    assert_near(found[0], expected[0], dtype, outputs)
    assert_near(found[1], expected[1], dtype, rows)
    if bias:
        assert_near(found[2], expected[2], dtype, rows)
    else:
        assert found[2] is None


@pytest.mark.skipif(PRODUCT == "blas", reason="BLAS promises no such thing")
@pytest.mark.parametrize("sizes", [(5, 1), (8, 3), (48, 20), (64, 33), (300, 520)])
def test_bits_depend_on_nothing_beside_a_row(dtype, sizes):
    x, weight, bias, grad_y = arrays(0, 400, *sizes, dtype, True)
    affine = Affine(weight, bias, Version())
    found = []
    with threads_as_before():
        for threads in (1, 2, 5):
            cylstm.set_num_threads(threads)
            found.append((affine.run(x), *affine.backward(x, grad_y)))
    for others in found[1:]:
        for first, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(first, other)
    for part in (slice(0, 1), slice(7, 9), slice(100, 300)):
        np.testing.assert_array_equal(affine.run(x[part].copy()), found[0][0][part])
        grad_x, _, _ = affine.backward(x[part].copy(), grad_y[part].copy())
        np.testing.assert_array_equal(grad_x, found[0][1][part])


def test_changes_of_parameters_are_seen(dtype):
    linear, x = Linear(5, 7, dtype=dtype, seed=0), np.ones((3, 5), dtype)
    linear.backward(linear.forward(x)[1], np.ones((3, 7), dtype))  # both copies are packed
    with linear.edit() as parameters:
        parameters["weight"][...] = 2
        parameters["bias"][...] = 1
    y, tape = linear.forward(x)
    np.testing.assert_array_equal(y, np.full((3, 7), 11, dtype))
    grad_x, _ = linear.backward(tape, np.ones((3, 7), dtype))
    np.testing.assert_array_equal(grad_x, np.full((3, 5), 14, dtype))


def test_a_used_layer_can_be_pickled(dtype):
    linear, x = Linear(5, 32, dtype=dtype, seed=0), np.ones((3, 5), dtype)
    expected = linear(x)
    again = pickle.loads(pickle.dumps(linear))
    with linear.edit() as parameters:
        parameters["weight"][...] = 0
    np.testing.assert_array_equal(again(x), expected)


def test_nan_stays_in_its_row(dtype):
    x, weight, bias, _ = arrays(0, 9, 40, 50, dtype, True)
    x[4, 7] = np.nan
    y = Affine(weight, bias, Version()).run(x)
    np.testing.assert_array_equal(np.isnan(y).all(axis=1), np.arange(9) == 4)
    np.testing.assert_array_equal(np.isnan(y).any(axis=1), np.arange(9) == 4)


@pytest.mark.parametrize("array", [np.ones((3, 4), "f"), np.ones((3, 5)), np.ones((5, 3), "f").T])
def test_other_arrays_are_refused(array):
    affine = Affine(np.ones((2, 5), "f"), None, Version())
    with pytest.raises(ValueError, match="contiguous"):
        affine.run(array)
    with pytest.raises(ValueError, match="contiguous"):
        affine.backward(array, np.ones((3, 2), "f"))
