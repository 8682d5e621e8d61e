"""What features say of labels: without a row's own label, file order or the order of a pair."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from w2s_ray.steps.opinions import FOLDS, Judge, Opinions

SHAPES = pytest.mark.parametrize(("per_row", "classes"), [(2, 2), (1, 2), (1, 5)])
JUDGES = pytest.mark.parametrize("judge", ["probe", "knn"])
ROWS, WIDTH = 400, 6
Labels = NDArray[np.float32]
HASHES = np.random.default_rng(7).integers(0, 2**63, ROWS, dtype=np.uint64)


def problem(per_row: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """States (n, m, H) whose classes a linear rule of the features tells apart, and the classes."""
    rng = np.random.default_rng(classes)
    states = rng.normal(size=(ROWS, per_row, WIDTH)) * 10.0 ** rng.uniform(-2, 2, WIDTH)
    x = states[:, 0] - states[:, 1] if per_row == 2 else states[:, 0]
    rule = rng.normal(size=(WIDTH, classes)) / states.std(axis=(0, 1))[:, None]
    if per_row == 2:
        rule[:, 0] = 0.0
    return states.astype(np.float32), (x @ rule).argmax(axis=1)


def opinion(judge: Judge, states: Labels, labels: Labels, hashes: Any, k: int) -> Labels:
    return Opinions(states, hashes)(judge, labels, k)


def labelled(truth: NDArray[np.int64], classes: int, noise: float = 0.2) -> NDArray[np.float32]:
    """Confident labels, some of them wrong."""
    rng = np.random.default_rng(1)
    wrong = rng.uniform(size=len(truth)) < noise
    shown = np.where(wrong, (truth + rng.integers(1, classes, len(truth))) % classes, truth)
    return (0.8 * np.eye(classes)[shown] + 0.2 / classes).astype(np.float32)


@SHAPES
@JUDGES
def test_opinions_are_probabilities_and_better_than_the_labels(
    judge: Judge, per_row: int, classes: int
) -> None:
    states, truth = problem(per_row, classes)
    labels = labelled(truth, classes, noise=0.3 if classes == 2 else 0.5)
    said = opinion(judge, states, labels, HASHES, 10)
    assert said.dtype == np.float32 and said.shape == labels.shape
    np.testing.assert_allclose(said.sum(axis=1), 1.0, atol=1e-6)
    assert said.min() >= 0
    right = (said.argmax(axis=1) == truth).mean()
    assert right > (labels.argmax(axis=1) == truth).mean()


@SHAPES
@JUDGES
def test_a_row_does_not_judge_itself(judge: Judge, per_row: int, classes: int) -> None:
    states, truth = problem(per_row, classes)
    labels = labelled(truth, classes)
    changed = labels.copy()
    changed[5] = np.roll(labels[5], 1)
    before, after = (opinion(judge, states, each, HASHES, 10) for each in (labels, changed))
    np.testing.assert_array_equal(before[5], after[5])
    assert (before != after).any(axis=1).sum() > 3
    if judge == "probe":  # nor do the other rows of its fold change
        assert (before == after).all(axis=1).sum() >= ROWS // FOLDS


@SHAPES
@JUDGES
def test_file_order_changes_no_bit(judge: Judge, per_row: int, classes: int) -> None:
    states, truth = problem(per_row, classes)
    states[30] = states[31]  # equal rows tie
    labels = labelled(truth, classes)
    order = np.random.default_rng(3).permutation(ROWS)
    said = opinion(judge, states, labels, HASHES, 10)
    turned = opinion(judge, states[order], labels[order], HASHES[order], 10)
    np.testing.assert_array_equal(turned, said[order])


@JUDGES
def test_turning_pairs_round_turns_their_opinions_and_no_others(judge: Judge) -> None:
    states, truth = problem(2, 2)
    labels = labelled(truth, 2)
    turned_states, turned_labels = states.copy(), labels.copy()
    turned_states[::3], turned_labels[::3] = states[::3, ::-1], labels[::3, ::-1]
    said = opinion(judge, states, labels, HASHES, 10)
    turned = opinion(judge, turned_states, turned_labels, HASHES, 10)
    turned[::3] = turned[::3, ::-1]
    np.testing.assert_allclose(turned, said, atol=1e-5)


@pytest.mark.parametrize("k", [1, 7, 500])
@pytest.mark.parametrize(("per_row", "classes"), [(2, 2), (1, 3)])
def test_neighbours_are_those_of_a_plain_search(per_row: int, classes: int, k: int) -> None:
    states, truth = problem(per_row, classes)
    labels = labelled(truth, classes)
    said = opinion("knn", states, labels, HASHES, k)
    x = states.astype(np.float64)
    scale, mean = x.std(axis=(0, 1)), x.mean(axis=(0, 1))
    x = (x[:, 0] - x[:, 1]) / scale if per_row == 2 else (x[:, 0] - mean) / scale
    for row in range(0, ROWS, 40):
        cosines = x @ x[row] / np.linalg.norm(x, axis=1) / np.linalg.norm(x[row])
        near = np.abs(cosines) if per_row == 2 else cosines
        others = np.argsort(-near)
        others = others[others != row][:k]
        votes = labels[others].astype(np.float64)
        if per_row == 2:
            votes = np.where(cosines[others, None] < 0, votes[:, ::-1], votes)
        np.testing.assert_allclose(said[row], votes.mean(axis=0), atol=1e-6)


@JUDGES
def test_equal_answers_and_constant_features_say_nothing(judge: Judge) -> None:
    states, truth = problem(2, 2)
    states[:, :, 0] = 4.0
    states[9, 1] = states[9, 0]
    said = opinion(judge, states, labelled(truth, 2), HASHES, 10)
    assert np.isfinite(said).all()
    np.testing.assert_allclose(said[9], 0.5, atol=1e-6)


@JUDGES
def test_few_rows_are_enough_and_one_is_not(judge: Judge) -> None:
    states, truth = problem(1, 2)
    labels = labelled(truth, 2)
    assert opinion(judge, states[:2], labels[:2], HASHES[:2], 10).shape == (2, 2)
    with pytest.raises(ValueError, match=f"{judge} of labels: 1 rows, expected at least 2"):
        opinion(judge, states[:1], labels[:1], HASHES[:1], 10)
