"""Several models combined: identities of the three rules, and weights that know better models."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from w2s_ray.objectives.ensembles import combined, estimated_accuracies, members, votes

RULES = ("mean", "product", "learned")


def some_probs(models: int = 4, rows: int = 50, classes: int = 3) -> NDArray[np.float64]:
    return np.random.default_rng(0).dirichlet(np.ones(classes), size=(models, rows))


def labels_of(accuracies: list[float], rows: int, classes: int) -> NDArray[np.float64]:
    """(m, n, K) labels of models with independent errors, right as often as ``accuracies``."""
    rng = np.random.default_rng(1)
    truth = rng.integers(classes, size=rows)
    labels = np.full((len(accuracies), rows, classes), 0.3 / (classes - 1))
    for model, accuracy in enumerate(accuracies):
        wrong = (truth + rng.integers(1, classes, size=rows)) % classes
        chosen = np.where(rng.random(rows) < accuracy, truth, wrong)
        labels[model, np.arange(rows), chosen] = 0.7
    return labels


def ensemble(probs: NDArray[np.float64], rule: str) -> NDArray[np.float64]:
    return combined(probs, rule, members(probs, rule).weights)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("rule", RULES)
def test_an_ensemble_of_equal_models_is_that_model(rule: str, classes: int) -> None:
    (probs,) = some_probs(1, classes=classes)
    np.testing.assert_allclose(ensemble(np.stack([probs] * 3), rule), probs, rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_labels_are_distributions_and_the_order_of_models_does_not_matter(rule: str) -> None:
    probs = some_probs()
    expected = ensemble(probs, rule)
    np.testing.assert_allclose(expected.sum(axis=1), 1.0)
    for order in permutations(range(len(probs))):
        np.testing.assert_allclose(ensemble(probs[list(order)], rule), expected, rtol=1e-9)


def test_mean_and_product_are_the_arithmetic_and_the_geometric_mean() -> None:
    probs = some_probs()
    np.testing.assert_allclose(ensemble(probs, "mean"), probs.mean(axis=0))
    geometric = probs.prod(axis=0) ** (1 / len(probs))
    geometric /= geometric.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ensemble(probs, "product"), geometric)


@pytest.mark.parametrize("rule", RULES)
def test_certain_models_that_contradict_each_other_give_numbers_and_ties_stay_ties(
    rule: str,
) -> None:
    probs = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.5]]])
    labels = ensemble(probs, rule)
    assert np.isfinite(labels).all() and labels[0, 0] > 0.5
    assert labels[1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("classes", [2, 5])
def test_agreement_alone_tells_how_often_each_model_is_right(classes: int) -> None:
    accuracies = [0.9, 0.6, 0.75, 0.7]
    labels = labels_of(accuracies, 20_000, classes)
    estimated = estimated_accuracies(votes(labels))
    np.testing.assert_allclose(estimated, accuracies, atol=0.02)
    weights = members(labels, "learned").weights
    log_odds = np.log(np.array(accuracies) * (classes - 1) / (1 - np.array(accuracies)))
    np.testing.assert_allclose(weights, log_odds / log_odds.sum(), atol=0.03)


def test_a_model_that_guesses_has_no_weight_and_none_is_below_zero() -> None:
    weights = members(labels_of([0.9, 0.9, 0.9, 0.3], 5_000, 2), "learned").weights
    assert weights[3] == 0.0 and weights.min() >= 0.0 and weights.sum() == pytest.approx(1.0)


def test_models_that_always_agree_or_only_tie_count_alike() -> None:
    same = np.stack([some_probs(1)[0]] * 3)
    np.testing.assert_allclose(members(same, "learned").weights, 1 / 3)
    ties = np.full((3, 10, 2), 0.5)
    np.testing.assert_allclose(members(ties, "learned").weights, 1 / 3)


def test_weights_of_two_models_are_refused() -> None:
    with pytest.raises(ValueError, match="3 or more"):
        members(some_probs(2), "learned")
