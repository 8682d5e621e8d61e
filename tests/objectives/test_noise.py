"""Label noise: which rows, how many, and what happens to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from w2s_ray.objectives.noise import apply_noise
from w2s_ray.order import hashes, order

IDS = [f"{row:016x}" for row in range(500)]
HASHES = hashes(IDS, 0, "noise")
Labels = NDArray[np.float32]


def soft(classes: int, rows: int = 500) -> Labels:
    """Labels with one top class each, so that any noise with strength < 1 moves every row."""
    raw = np.random.default_rng(classes).dirichlet(np.full(classes, 0.5), rows)
    return raw.astype(np.float32)


def touched(before: Labels, after: Labels) -> set[int]:
    return set(np.flatnonzero((before != after).any(axis=1)).tolist())


@given(rows=st.integers(0, 500), hundredths=st.integers(0, 100))
def test_exactly_the_rounded_share_is_touched_and_the_rest_is_bit_identical(
    rows: int, hundredths: int
) -> None:
    labels = soft(2, rows)
    before = labels.copy()
    noisy = apply_noise(labels, HASHES[:rows], hundredths / 100, -1.0)
    assert len(touched(labels, noisy)) == (hundredths * rows + 50) // 100
    assert noisy.dtype == np.float32
    assert noisy.shape == (rows, 2)
    assert np.array_equal(labels, before), "stored labels are never changed in place"


def test_halves_round_up_as_the_ratio_is_written() -> None:
    assert len(touched(soft(2, 50), apply_noise(soft(2, 50), HASHES[:50], 0.29, -1.0))) == 15
    assert int(0.29 * 50 + 0.5) == 14, "what binary arithmetic would have said"


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_rows_at_a_lower_ratio_are_among_those_at_a_higher_with_the_same_noise(
    classes: int,
) -> None:
    labels, before, smaller = soft(classes), soft(classes), set[int]()
    for ratio in (0.0, 0.1, 0.2, 0.5, 1.0):
        noisy = apply_noise(labels, HASHES, ratio, -1.0)
        larger = touched(labels, noisy)
        assert smaller <= larger
        assert len(larger) == 500 * ratio
        assert np.array_equal(noisy[list(smaller)], before[list(smaller)])
        smaller, before = larger, noisy


@pytest.mark.parametrize(("classes", "strength"), [(2, -1.0), (2, 0.3), (5, -1.0), (5, 0.0)])
def test_the_order_of_rows_does_not_matter(classes: int, strength: float) -> None:
    labels, shuffle = soft(classes), np.random.default_rng(0).permutation(500)
    expected = apply_noise(labels, HASHES, 0.3, strength)[shuffle]
    assert np.array_equal(apply_noise(labels[shuffle], HASHES[shuffle], 0.3, strength), expected)


def test_the_noisy_rows_are_the_first_of_the_permutation_over_row_ids() -> None:
    labels = soft(2)
    first = order(IDS, 0, "noise")[:50].tolist()
    assert touched(labels, apply_noise(labels, HASHES, 0.1, -1.0)) == set(first)


def test_another_seed_draws_other_rows() -> None:
    labels = soft(2)
    first = touched(labels, apply_noise(labels, HASHES, 0.2, -1.0))
    second = touched(labels, apply_noise(labels, hashes(IDS, 1, "noise"), 0.2, -1.0))
    assert 5 < len(first & second) < 40, "about 20 of 100 by chance"


def test_minus_one_flips_a_preference_and_keeps_its_confidence() -> None:
    labels = soft(2)
    noisy = apply_noise(labels, HASHES, 1.0, -1.0)
    np.testing.assert_allclose(noisy, labels[:, ::-1], atol=1e-7)
    np.testing.assert_allclose(noisy, 1.0 - labels, atol=1e-7)
    np.testing.assert_allclose(apply_noise(noisy, HASHES, 1.0, -1.0), labels, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_strengths_from_one_to_nothing_are_a_line_to_the_even_label(classes: int) -> None:
    labels = soft(classes)
    assert np.array_equal(apply_noise(labels, HASHES, 1.0, 1.0), labels)
    assert (apply_noise(labels, HASHES, 1.0, 0.0) == np.float32(1 / classes)).all()
    half = apply_noise(labels, HASHES, 1.0, 0.5)
    np.testing.assert_allclose(half, (labels + 1 / classes) / 2, atol=1e-7)
    np.testing.assert_allclose(half.sum(axis=1), 1.0, atol=1e-6)


def test_a_preference_is_turned_half_way_by_minus_a_half() -> None:
    labels = soft(2)
    noisy = apply_noise(labels, HASHES, 1.0, -0.5)
    np.testing.assert_allclose(noisy, 0.25 + labels[:, ::-1] / 2, atol=1e-7)


def test_of_rows_with_one_hash_the_first_are_noisy() -> None:
    labels = soft(2)
    equal = np.arange(500, dtype=np.uint64) // 100  # numpy's default sort mixes these up
    noisy = apply_noise(labels, equal, 0.3, -1.0)
    assert touched(labels, noisy) == set(range(150))
    backwards = apply_noise(labels, equal[::-1], 0.1, -1.0)
    assert touched(labels, backwards) == set(range(400, 450))


@pytest.mark.parametrize("classes", [3, 4, 7])
def test_with_more_classes_minus_one_swaps_the_top_with_another_drawn_evenly(classes: int) -> None:
    labels = soft(classes)
    noisy = apply_noise(labels, HASHES, 1.0, -1.0)
    assert np.array_equal(np.sort(noisy, axis=1), np.sort(labels, axis=1)), "a swap, nothing else"
    assert ((noisy != labels).sum(axis=1) == 2).all()
    was, now = labels.argmax(axis=1), noisy.argmax(axis=1)
    away = np.bincount((now - was) % classes, minlength=classes)
    assert away[0] == 0
    assert (np.abs(away[1:] / 500 - 1 / (classes - 1)) < 0.1).all()
    few = apply_noise(labels, HASHES, 0.2, -1.0).argmax(axis=1)
    away = np.bincount((few - was) % classes, minlength=classes)
    assert (away[1:] > 0.3 * 100 / (classes - 1)).all(), "the lowest hashes choose evenly too"


@pytest.mark.parametrize(
    ("classes", "ratio", "strength", "named"),
    [
        (3, 0.1, -0.5, "-0.5 with 3 classes"),
        (2, 1.1, -1.0, "ratio 1.1"),
        (2, -0.1, -1.0, "ratio -0.1"),
        (2, 0.1, 1.5, "strength 1.5"),
        (2, 0.1, -1.5, "strength -1.5"),
        (2, 0.1, float("nan"), "strength nan"),
    ],
)
def test_what_has_no_meaning_is_refused(
    classes: int, ratio: float, strength: float, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        apply_noise(soft(classes), HASHES, ratio, strength)


def test_a_hash_for_every_label() -> None:
    with pytest.raises(ValueError, match="500 labels"):
        apply_noise(soft(2), HASHES[:-1], 0.1, -1.0)
