"""Scores of labels, the rows that a filter keeps, and weights: definitions and symmetries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from w2s_ray.objectives.label_rows import (
    best_rows,
    confidence,
    confidence_weights,
    margin_to_prior,
    support,
)

K = pytest.mark.parametrize("classes", [2, 5])


def soft(classes: int, rows: int = 60, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.7), rows).astype(np.float32)


def test_of_two_classes_the_scores_are_distances_of_w() -> None:
    labels = soft(2)
    w = labels[:, 1].astype(np.float64)
    np.testing.assert_allclose(confidence(labels), np.abs(w - 0.5), atol=1e-7)
    logit = np.log(w / (1 - w))
    for prior in (0.5, 0.2):
        expected = np.abs(logit - np.log(prior / (1 - prior)))
        margins = margin_to_prior(labels, np.array([1 - prior, prior]))
        np.testing.assert_allclose(margins, expected, atol=1e-4)


@K
def test_classes_have_no_order(classes: int) -> None:
    labels, opinion = soft(classes), soft(classes, seed=1)
    prior, turned = labels.mean(axis=0), np.roll(np.arange(classes), 1)
    np.testing.assert_allclose(confidence(labels), confidence(labels[:, turned]))
    np.testing.assert_allclose(
        margin_to_prior(labels, prior), margin_to_prior(labels[:, turned], prior[turned])
    )
    np.testing.assert_allclose(
        support(labels, opinion), support(labels[:, turned], opinion[:, turned])
    )


@K
def test_hard_labels_are_the_most_confident_and_have_finite_margins(classes: int) -> None:
    labels = np.vstack([soft(classes), np.eye(classes, dtype=np.float32)])
    uniform = np.full(classes, 1 / classes)
    for scores in (confidence(labels), margin_to_prior(labels, uniform)):
        assert np.isfinite(scores).all()
        assert scores[-classes:].min() >= scores[:-classes].max()
    assert confidence(labels).max() == pytest.approx(1 - 1 / classes)


def test_support_is_what_the_opinion_gives_to_the_top_class() -> None:
    labels = np.array([[0.6, 0.4], [0.1, 0.9], [0.5, 0.5]], np.float32)
    opinion = np.array([[0.52, 0.48], [0.52, 0.48], [0.9, 0.1]])
    np.testing.assert_allclose(support(labels, opinion), [0.52, 0.48, 0.5])


@given(
    keeps=st.lists(st.floats(0.02, 1), min_size=2, max_size=2).map(sorted),
    levels=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_a_smaller_share_is_a_part_of_a_larger_one_and_file_order_changes_nothing(
    keeps: list[float], levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, 50).astype(np.float64)  # with many ties
    hashes = rng.integers(0, 2**63, 50, dtype=np.uint64)
    fewer, more = (best_rows(scores, hashes, keep) for keep in keeps)
    assert set(fewer) <= set(more) and (np.diff(fewer) > 0).all()
    left_out = np.setdiff1d(np.arange(50), more)
    if len(left_out):
        assert scores[more].min() >= scores[left_out].max()
    order = rng.permutation(50)
    again = best_rows(scores[order], hashes[order], keeps[0])
    assert set(order[again]) == set(fewer)


def test_a_share_is_rounded_half_up_and_none_is_refused() -> None:
    scores, hashes = np.arange(50.0), np.arange(50, dtype=np.uint64)
    assert len(best_rows(scores, hashes, 0.29)) == 15
    assert best_rows(scores, hashes, 1.0).tolist() == list(range(50))
    with pytest.raises(ValueError, match=r"label_filter: 0.009 of 50 rows is none"):
        best_rows(scores, hashes, 0.009)


@K
def test_weights_have_mean_one_and_follow_confidence(classes: int) -> None:
    labels = soft(classes)
    weights, distances = confidence_weights(labels), confidence(labels)
    assert weights.dtype == np.float32 and weights.mean() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(weights / weights.max(), distances / distances.max(), rtol=1e-5)


@K
@pytest.mark.parametrize("distance", [0.0, 1e-3, 0.1, 1.0])
def test_labels_that_are_equally_confident_weigh_one_even_if_uniform(
    classes: int, distance: float
) -> None:
    uniform = np.full((classes, classes), 1 / classes)
    labels = ((1 - distance) * uniform + distance * np.eye(classes)).astype(np.float32)
    np.testing.assert_allclose(confidence_weights(labels), 1.0, rtol=1e-3)
