"""What a gradient is held against."""

import numpy as np


def central_differences(function, array, step=1e-6):
    """Return the gradient of a scalar function with respect to an array that it reads."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = function()
        array[index] = value - step
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_gradient(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-8)
