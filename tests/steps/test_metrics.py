"""Scores against scikit-learn, and the identities that tie them together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from w2s_ray.steps import metrics


def predictions(seed, n, k, scale=2.0):
    rng = np.random.default_rng(seed)
    probs = metrics.softmax(rng.normal(scale=scale, size=(n, k)).astype(np.float32))
    return probs, rng.integers(0, k, n)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_agrees_with_scikit_learn(seed, k):
    probs, labels = predictions(seed, 60, k)
    labels[:k] = np.arange(k)  # every class is there
    assert metrics.accuracy(probs, labels) == accuracy_score(labels, probs.argmax(1))
    assert metrics.cross_entropy(probs, labels, 1e-12) == pytest.approx(log_loss(labels, probs))
    theirs = roc_auc_score(labels, probs[:, 1] if k == 2 else probs, multi_class="ovr")
    assert metrics.auroc(probs, labels) == pytest.approx(theirs)


def test_a_model_that_cannot_tell_scores_one_half():
    probs, labels = np.full((10, 2), 0.5), np.array([1] * 7 + [0] * 3)
    assert metrics.accuracy(probs, labels) == 0.5
    assert metrics.auroc(probs, labels) == 0.5


def test_auroc_of_a_single_class_is_missing_not_zero():
    assert metrics.auroc(np.full((3, 2), 0.5), np.ones(3, dtype=np.int64)) is None


def test_calibration_error_of_a_model_that_knows_its_odds():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1.0, 200_000)
    probs = np.stack([p, 1 - p], axis=1)
    labels = (rng.uniform(size=len(p)) > p).astype(np.int64)
    assert metrics.calibration_error(probs, labels) < 0.01
    assert metrics.calibration_error(probs, 1 - labels) == pytest.approx(0.5, abs=0.01)


def test_divergence_is_zero_only_of_equals_and_direction_matters():
    left, _ = predictions(1, 50, 2)
    right, _ = predictions(2, 50, 2)
    assert metrics.divergence(left, left, 1e-3) == 0.0
    forward, reverse = (
        metrics.divergence(left, right, 1e-3),
        metrics.divergence(right, left, 1e-3),
    )
    assert forward > 0 and reverse > 0 and forward != reverse


def test_clipping_bounds_what_one_row_can_cost():
    probs, labels = np.array([[1.0, 0.0]]), np.array([1])
    assert metrics.cross_entropy(probs, labels, 1e-3) == pytest.approx(-np.log(1e-3))


@pytest.mark.long
@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.1, 8.0))
def test_the_recalibrated_cross_entropy_is_that_of_the_best_temperature(seed, k, scale):
    probs, labels = predictions(seed, 80, k)
    logs, half = np.log(probs) * scale, np.arange(80) % 2 == 0
    grid = np.linspace(0, 3, 3001)
    total = 0.0
    for fold in (half, ~half):
        rest = [-metrics_log(g * logs[~fold])[range(40), labels[~fold]].mean() for g in grid]
        best = grid[int(np.argmin(rest))]
        if best == grid[-1]:  # beyond the grid
            return
        total += -metrics_log(best * logs[fold])[range(40), labels[fold]].mean() / 2
    found = metrics.recalibrated_cross_entropy(metrics.softmax(logs), labels, half, 1e-12)
    assert found == pytest.approx(total, abs=2e-3)


def metrics_log(logits):
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def test_recalibration_undoes_any_temperature_and_outlives_extremes():
    probs, labels = predictions(3, 400, 3)
    labels[::2] = probs[::2].argmax(axis=1)  # the model knows something
    half = np.arange(400) % 3 == 0
    plain = metrics.recalibrated_cross_entropy(probs, labels, half, 1e-9)
    for sharpness in (0.01, 30.0):
        other = metrics.softmax(sharpness * np.log(probs))
        assert metrics.recalibrated_cross_entropy(other, labels, half, 1e-9) == pytest.approx(
            plain, rel=1e-6
        )
    right = np.eye(3)[labels]
    assert metrics.recalibrated_cross_entropy(right, labels, half, 1e-3) < 3e-3
    wrong = np.eye(3)[(labels + 1) % 3]
    assert metrics.recalibrated_cross_entropy(wrong, labels, half, 1e-3) == pytest.approx(np.log(3))
    assert metrics.recalibrated_cross_entropy(probs, labels, half & False, 1e-3) is None


def test_brier_entropy_and_confidence_of_known_predictions():
    probs, labels = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1])
    assert metrics.brier(probs, labels) == pytest.approx((2 * 0.2**2 + 2 * 0.5**2) / 2)
    assert metrics.entropy(probs) == pytest.approx(
        (-0.8 * np.log(0.8) - 0.2 * np.log(0.2) + np.log(2)) / 2
    )
    assert metrics.entropy(np.eye(2)) == 0.0
    assert metrics.confidence(probs) == pytest.approx(0.65)


def test_a_tied_class_is_half_right_for_the_calibration_error():
    probs, labels = np.full((4, 2), 0.5), np.array([0, 0, 0, 0])
    assert metrics.calibration_error(probs, labels) == 0.0


def test_recalibration_does_not_depend_on_the_scale_of_the_logits():
    """A student at a tiny learning rate has logits near 0, whatever it knows."""
    probs, labels = predictions(5, 300, 3)
    labels = np.where(np.arange(300) % 3 > 0, probs.argmax(1), labels)
    half = np.arange(300) % 2 == 0
    plain = metrics.recalibrated_cross_entropy(probs, labels, half, 1e-3)
    for scale in (1e-6, 1e-3, 50.0):
        scaled = metrics.softmax(scale * np.log(probs))
        other = metrics.recalibrated_cross_entropy(scaled, labels, half, 1e-3)
        assert other == pytest.approx(plain, abs=1e-6)


def test_scores_do_not_depend_on_the_order_of_memory():
    probs, labels = predictions(4, 10_000, 3)
    columns = np.asfortranarray(probs)
    for score in (metrics.accuracy, metrics.brier, metrics.calibration_error):
        assert score(columns, labels) == pytest.approx(score(probs, labels), abs=1e-15)
    assert metrics.auroc(columns, labels) == metrics.auroc(probs, labels)
