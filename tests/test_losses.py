"""Losses: each value against its formula or PyTorch, each gradient by central differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cylstm
from cylstm.train import cross_entropy_loss, huber_loss, mae_loss, mse_loss
from gradient_check import assert_gradient, central_differences
from threads import threads_as_before

REGRESSION = {"mse": mse_loss, "mae": mae_loss, "huber": huber_loss}


@pytest.fixture(params=REGRESSION.values(), ids=REGRESSION.keys())
def loss(request):
    return request.param


def expected_loss(loss, error):
    if loss is mse_loss:
        return np.mean(error**2)
    size = np.abs(error)
    return np.mean(size if loss is mae_loss else np.where(size < 1, size**2 / 2, size - 0.5))


def test_value_and_gradient(loss, rng):
    prediction, target = 2 * rng.normal(size=(2, 3, 4, 5))
    value, gradient = loss(prediction, target)
    assert isinstance(value, float)
    assert value == pytest.approx(expected_loss(loss, prediction - target), rel=1e-14)
    assert_gradient(gradient, central_differences(lambda: loss(prediction, target)[0], prediction))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_where_keeps_what_counts(loss, rng, axes):
    prediction, target = 2 * rng.normal(size=(2, 3, 4, 5))
    where = rng.random(prediction.shape[:axes]) < 0.5
    where.flat[0], where.flat[1] = True, False
    value, gradient = loss(prediction, target, where=where)
    kept, kept_gradient = loss(prediction[where], target[where])
    assert value == pytest.approx(kept, rel=1e-14)
    np.testing.assert_allclose(gradient[where], kept_gradient, rtol=1e-14)
    assert not gradient[~where].any()
    prediction[~where], target[~where] = np.nan, np.inf  # what does not count is not looked at
    with np.errstate(invalid="ignore"):
        assert loss(prediction, target, where=where)[0] == value


def test_is_pytorchs(loss, rng, dtype):
    torch = pytest.importorskip("torch")
    prediction, target = (3 * rng.normal(size=(2, 7, 4))).astype(dtype)
    theirs = {mse_loss: "mse_loss", mae_loss: "l1_loss", huber_loss: "huber_loss"}[loss]
    variable = torch.tensor(prediction, requires_grad=True)
    expected = getattr(torch.nn.functional, theirs)(variable, torch.tensor(target))
    expected.backward()
    value, gradient = loss(prediction, target)
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype]
    assert gradient.dtype == dtype
    assert value == pytest.approx(expected.item(), rel=tolerance)
    np.testing.assert_allclose(gradient, variable.grad.numpy(), rtol=tolerance)


def test_losses_are_summed_in_float64(loss):
    prediction = np.full(10_000_001, 0.1, np.float32)
    value, gradient = loss(prediction, np.zeros_like(prediction))
    assert value == pytest.approx(expected_loss(loss, np.float64(np.float32(0.1))), rel=1e-7)
    assert gradient.dtype == np.float32


def test_mae_has_no_gradient_at_the_target():
    assert not mae_loss(np.ones(3), np.ones(3))[1].any()


@pytest.mark.parametrize("delta", [0.1, 3.0])
def test_hubers_delta(rng, delta):
    prediction, target = 2 * rng.normal(size=(2, 40))
    error = np.abs(prediction - target)
    near, far = error**2 / 2, delta * (error - delta / 2)
    value, gradient = huber_loss(prediction, target, delta=delta)
    assert value == pytest.approx(np.where(error < delta, near, far).mean(), rel=1e-14)
    assert np.abs(gradient).max() == pytest.approx(delta / 40)


@pytest.mark.parametrize(
    ("prediction", "target", "error", "message"),
    [
        (np.ones((2, 1)), np.ones(2), ValueError, r"target: expected shape \(2, 1\), got \(2,\)"),
        (np.ones(2), 1.0, TypeError, "target: expected an array, got float"),
        (np.ones(2), np.ones(2, "f4"), TypeError, "target: expected dtype float64, got float32"),
        (np.ones((0, 2)), np.ones((0, 2)), ValueError, "prediction: expected at least one element"),
        (np.ones(2, int), np.ones(2), TypeError, "prediction: expected .* got int64"),
    ],
)
def test_bad_input(loss, prediction, target, error, message):
    with pytest.raises(error, match=message):
        loss(prediction, target)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        (np.ones(3), TypeError, "where: expected bool, got float64"),
        (np.ones(2, bool), ValueError, r"where: expected the first sizes of \(3, 2\), got \(2,\)"),
        (np.zeros(3, bool), ValueError, "where: expected at least one element that counts"),
    ],
)
def test_a_bad_mask(loss, where, error, message):
    with pytest.raises(error, match=message):
        loss(np.ones((3, 2)), np.ones((3, 2)), where=where)


@pytest.mark.parametrize("delta", [0, -1.0, np.inf])
def test_a_bad_delta(delta):
    with pytest.raises(ValueError, match="delta: expected a"):
        huber_loss(np.ones(2), np.ones(2), delta=delta)


# Cross-entropy ------------------------------------------------------------------------------------


def log_softmax(logits):
    """In extended precision, from the definition."""
    logits = logits.astype(np.longdouble)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_cross_entropy_and_its_gradient(rng):
    logits, labels = rng.normal(size=(3, 4, 5)), rng.integers(5, size=(3, 4))
    value, gradient = cross_entropy_loss(logits, labels)
    chosen = np.take_along_axis(log_softmax(logits), labels[..., None], -1)
    assert value == pytest.approx(float(-chosen.mean()), rel=1e-14)
    assert_gradient(
        gradient, central_differences(lambda: cross_entropy_loss(logits, labels)[0], logits)
    )


def test_cross_entropy_is_pytorchs(rng, dtype):
    torch = pytest.importorskip("torch")
    logits = (5 * rng.normal(size=(40, 7))).astype(dtype)
    labels = rng.integers(7, size=40)
    labels[::3] = -100
    variable = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(variable, torch.tensor(labels))
    expected.backward()
    value, gradient = cross_entropy_loss(logits, labels)
    tolerance = {"float32": 1e-6, "float64": 1e-13}[dtype]
    assert gradient.dtype == dtype
    assert value == pytest.approx(expected.item(), rel=tolerance)
    np.testing.assert_allclose(gradient, variable.grad.numpy(), rtol=tolerance, atol=tolerance / 40)


def test_ignored_labels_do_not_count(rng):
    logits, labels = rng.normal(size=(6, 4)), np.array([0, 3, -100, 1, 7, 2])
    where = np.array([True, True, True, False, True, True])
    value, gradient = cross_entropy_loss(logits, np.where(labels == 7, -100, labels), where=where)
    kept = np.array([0, 1, 5])
    expected, expected_gradient = cross_entropy_loss(logits[kept], labels[kept])
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient[kept], expected_gradient, rtol=1e-13)
    assert not gradient[[2, 3, 4]].any()
    assert cross_entropy_loss(logits[[0, 4]], labels[[0, 4]], ignore_index=7)[0] == pytest.approx(
        cross_entropy_loss(logits[:1], labels[:1])[0]
    )


scales = st.sampled_from([0.0, 1e-30, 1.0, 100.0, 1e30, 3e38])


@given(st.lists(st.tuples(scales, st.floats(-1, 1)), min_size=2, max_size=6), st.data())
def test_any_finite_logits_are_stable(logits, data):
    """The value is right, no gradient is NaN, each row of them sums to zero, without a warning."""
    logits = np.array([[scale * share for scale, share in logits]], np.float32)
    label = data.draw(st.integers(0, logits.shape[1] - 1))
    value, gradient = cross_entropy_loss(logits, np.array([label]))
    expected = -log_softmax(logits)[0, label]
    assert value == pytest.approx(float(expected), rel=1e-6, abs=1e-6)
    assert np.isfinite(gradient).all()
    assert abs(gradient.sum()) < 1e-6
    np.testing.assert_allclose(
        gradient[0], np.exp(log_softmax(logits))[0] - (np.arange(logits.shape[1]) == label),
        atol=1e-6,
    )  # fmt: skip


def test_logits_of_minus_infinity_rule_classes_out():
    value, gradient = cross_entropy_loss(np.array([[0.0, -np.inf, 0.0]]), np.array([2]))
    assert value == pytest.approx(np.log(2))
    np.testing.assert_allclose(gradient, [[0.5, 0, -0.5]])


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.ones((2, 3)), np.ones(2), TypeError, "target: expected integers, got float64"),
        (np.ones((2, 3)), np.ones((2, 3), int), ValueError, r"target: expected shape \(2,\), got"),
        (np.ones((2, 3)), np.array([0, 3]), ValueError, "target: expected labels from 0 to 2.*3"),
        (np.ones((2, 3)), np.array([0, -1]), ValueError, "labels from 0 to 2, got -1"),
        (np.ones((2, 3)), np.full(2, -100), ValueError, "at least one label that counts, got none"),
        (np.ones((2, 3), int), np.ones(2, int), TypeError, "prediction: expected float32 or"),
    ],
)
def test_bad_input_to_cross_entropy(logits, labels, error, message):
    with pytest.raises(error, match=message):
        cross_entropy_loss(logits, labels)


@pytest.mark.parametrize("classes", [1, 7, 8, 9, 255, 256, 257, 10_000])
def test_many_classes_lose_no_digits(dtype, classes):
    rng = np.random.default_rng(classes)
    logits = (10 * rng.standard_normal((5, classes))).astype(dtype)
    labels = rng.integers(0, classes, 5)
    loss, gradient = cross_entropy_loss(logits, labels)
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    expected = np.exp(exact)
    expected[np.arange(5), labels] -= 1
    most = 1e-6 if dtype == "float32" else 1e-15
    np.testing.assert_allclose(loss, -exact[np.arange(5), labels].mean(), rtol=most, atol=most)
    np.testing.assert_allclose(gradient, expected / 5, rtol=0, atol=most)


def test_a_class_that_is_masked_out(dtype):
    logits = np.array([[1, -np.inf, 2, -1e30, 0]] * 3, dtype)
    loss, gradient = cross_entropy_loss(logits, np.array([0, 2, 4]))
    exact = np.log(np.exp([1.0, 2.0, 0.0]).sum()) - np.array([1, 2, 0])
    np.testing.assert_allclose(loss, exact.mean(), rtol=1e-6)
    np.testing.assert_array_equal(gradient[:, [1, 3]], np.zeros((3, 2), dtype))


def test_losses_do_not_depend_on_threads(dtype):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((500, 300)).astype(dtype), rng.integers(0, 300, 500)
    found = []
    with threads_as_before():
        for threads in (1, 2, 5):
            cylstm.set_num_threads(threads)
            found.append(cross_entropy_loss(logits, labels))
    for loss, gradient in found[1:]:
        assert loss == found[0][0]
        np.testing.assert_array_equal(gradient, found[0][1])
