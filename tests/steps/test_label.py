"""One temperature by likelihood: what it finds, within its bounds."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from w2s_ray.steps.label import HOTTEST, fitted_temperature


def drawn(classes: int, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn from their softmax."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(rows, classes)) * 2
    chances = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (rng.uniform(size=(rows, 1)) > chances).sum(axis=1)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_logits_off_by_a_factor_get_that_temperature(classes: int, factor: float) -> None:
    logits, labels = drawn(classes)
    assert fitted_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_the_likeliest(classes: int) -> None:
    logits, labels = drawn(classes, 300)

    def loss(log_t: float) -> float:
        return float(-log_softmax(logits / np.exp(log_t), axis=1)[np.arange(300), labels].mean())

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert np.log(fitted_temperature(logits, labels)) == pytest.approx(best.x, abs=1e-5)


def test_always_right_and_always_wrong_end_at_the_bounds() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 0.0]])
    assert fitted_temperature(logits, np.array([1, 0])) == pytest.approx(1 / HOTTEST)
    assert fitted_temperature(logits, np.array([0, 1])) == pytest.approx(HOTTEST)
