"""Labels at a temperature: the definition, what stays, and the two ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from w2s_ray.objectives.temperature import at_temperature

Labels = NDArray[np.float32]


def soft(classes: int, rows: int = 200) -> Labels:
    raw = np.random.default_rng(classes).dirichlet(np.full(classes, 0.7), rows)
    return raw.astype(np.float32)


def test_one_is_no_temperature_bit_for_bit() -> None:
    labels = soft(3)
    assert at_temperature(labels, 1.0) is labels


@given(logit=st.floats(-20, 20), temperature=st.floats(0.05, 20))
def test_of_two_classes_the_logit_is_divided(logit: float, temperature: float) -> None:
    w = np.float32(1 / (1 + np.exp(-logit)))
    if not 0 < w < 1:
        return
    sharpened = at_temperature(np.array([[1 - w, w]], np.float32), temperature)
    exact = np.log(float(w)) - np.log(float(np.float32(1 - w)))
    assert sharpened[0, 1] == pytest.approx(1 / (1 + np.exp(-exact / temperature)), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.0, 0.1, 0.7, 3.0])
def test_labels_stay_probabilities_and_the_top_class_on_top(
    classes: int, temperature: float
) -> None:
    labels = soft(classes)
    changed = at_temperature(labels, temperature)
    assert changed.dtype == np.float32 and changed.shape == labels.shape
    np.testing.assert_allclose(changed.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(changed.argmax(axis=1), labels.argmax(axis=1))
    confidence = changed.max(axis=1) - labels.max(axis=1)
    assert (confidence > 0).all() if temperature < 1 else (confidence < 0).all()


def test_temperatures_multiply() -> None:
    labels = soft(4)
    twice = at_temperature(at_temperature(labels, 0.5), 3.0)
    np.testing.assert_allclose(twice, at_temperature(labels, 1.5), atol=1e-5)


def test_zero_is_the_limit_and_shares_a_tie() -> None:
    labels = np.array([[0.2, 0.8, 0.0], [0.4, 0.4, 0.2], [1.0, 0.0, 0.0]], np.float32)
    hard = [[0, 1, 0], [0.5, 0.5, 0], [1, 0, 0]]
    np.testing.assert_array_equal(at_temperature(labels, 0.0), hard)
    np.testing.assert_allclose(at_temperature(labels, 1e-3), hard)


@given(
    labels=arrays(np.float32, (5, 2), elements=st.floats(0, 1, width=32)),
    temperature=st.floats(1e-3, 1e3),
)
def test_certain_labels_stay_certain_and_nothing_is_nan(labels: Labels, temperature: float) -> None:
    labels[:, 1] = 1 - labels[:, 0]
    changed = at_temperature(labels, temperature)
    assert np.isfinite(changed).all()
    certain = labels[:, 0] == 1
    np.testing.assert_array_equal(changed[certain], labels[certain])


@pytest.mark.parametrize("temperature", [-0.1, float("inf"), float("nan")])
def test_others_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="label temperature"):
        at_temperature(soft(2), temperature)
