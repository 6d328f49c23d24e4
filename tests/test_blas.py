"""The BLAS door against NumPy: dtype x transposition x leading dimension x zero sizes."""

import numpy as np
import pytest

from cylstm.core import blas as _blas

RELATIVE = {"float32": 1e-5, "float64": 1e-13}
ALPHA, BETA = 2.5, -0.5
SIZES = [(3, 4, 5), (1, 7, 2), (5, 1, 3), (2, 3, 1), (1, 1, 1), (70, 65, 64)]
EMPTY = [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)]


def matrix(rng, rows, columns, dtype, padding):
    """Random, each row followed by `padding` numbers that are not to be touched."""
    return rng.standard_normal((rows, columns + padding)).astype(dtype)[:, :columns]


def assert_agree(actual, expected):
    tolerance = RELATIVE[actual.dtype.name]
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("beta", [BETA, 0.0, 1.0])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), SIZES + EMPTY)
def test_gemm(rng, dtype, m, n, k, transpose_a, transpose_b, padding, beta):
    a = matrix(rng, *((k, m) if transpose_a else (m, k)), dtype, padding)
    b = matrix(rng, *((n, k) if transpose_b else (k, n)), dtype, padding)
    c = matrix(rng, m, n, dtype, padding)
    beyond = c.base[:, n:].copy()
    expected = ALPHA * (a.T if transpose_a else a) @ (b.T if transpose_b else b) + beta * c
    _blas._gemm_memview(transpose_a, transpose_b, ALPHA, a, b, beta, c)
    assert_agree(c, expected)
    np.testing.assert_array_equal(c.base[:, n:], beyond)


@pytest.mark.parametrize("beta", [BETA, 0.0, 1.0])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("m", "n"), [(3, 4), (1, 5), (5, 1), (700, 700), (0, 4), (3, 0), (0, 0)])
def test_gemv(rng, dtype, m, n, transpose, padding, step, beta):
    a = matrix(rng, m, n, dtype, padding)
    x, y = (rng.standard_normal(step * size).astype(dtype)[::step] for size in (n, m))
    if transpose:
        x, y = y, x
    expected = ALPHA * (a.T if transpose else a) @ x + beta * y
    _blas._gemv_memview(transpose, ALPHA, a, x, beta, y)
    assert_agree(y, expected)


@pytest.mark.parametrize("inner", [0, 5])
def test_beta_of_zero_overwrites_nan(dtype, inner):
    a, c = np.ones((2, inner), dtype), np.full((2, 2), np.nan, dtype)
    _blas._gemm_memview(False, True, 1.0, a, a, 0.0, c)
    np.testing.assert_array_equal(c, np.full((2, 2), inner))
    y = np.full(2, np.nan, dtype)
    _blas._gemv_memview(False, 1.0, a, np.ones(inner, dtype), 0.0, y)
    np.testing.assert_array_equal(y, np.full(2, inner))


def test_shapes_that_do_not_match(dtype):
    a = np.ones((2, 3), dtype)
    with pytest.raises(ValueError, match="shapes"):
        _blas._gemm_memview(False, False, 1.0, a, a, 0.0, np.ones((2, 3), dtype))
    with pytest.raises(ValueError, match="shapes"):
        _blas._gemv_memview(False, 1.0, a, np.ones(2, dtype), 0.0, np.ones(2, dtype))
