"""Whether a model gives, step by step, what it gives for whole sequences."""

import copy

import numpy as np


def check_streamed(model, x, expected, tolerance, time=1):
    """Assert that the model refuses to stream, or its steps are those of the whole.

    Parameters
    ----------
    model : Layer
    x : ndarray
    expected : ndarray or dict
        What the model returns for `x`.
    tolerance : float
    time : int
        The axis of time in `x`; the other of the first two is that of the batch.

    Returns
    -------
    bool
        Whether it streams.
    """
    try:
        stream = model.stream(x.shape[1 - time])
    except ValueError:
        return False
    halfway = None
    steps = [x.take(t, time) for t in range(x.shape[time])]
    for again in (False, True):
        outputs = []
        for t, step in enumerate(steps):
            if t == len(steps) // 2:
                halfway = copy.copy(stream)
            outputs.append(stream.step(step))
        if outputs[0].ndim == expected.ndim:  # one step of all, so far the last
            np.testing.assert_allclose(outputs[-1], expected, rtol=0, atol=tolerance)
        else:
            along = [k for k in range(expected.ndim) if _fits(expected, k, outputs)]
            assert along, "the outputs are of another shape"
            errors = [np.abs(np.stack(outputs, k) - expected).max() for k in along]
            assert min(errors) <= tolerance
        continued = [halfway.step(step) for step in steps[len(steps) // 2 :]]
        np.testing.assert_array_equal(continued, outputs[len(steps) // 2 :])
        if not again:
            stream.reset()
    return True


def _fits(expected, axis, outputs):
    return (*expected.shape[:axis], *expected.shape[axis + 1 :]) == outputs[0].shape and (
        expected.shape[axis] == len(outputs)
    )
