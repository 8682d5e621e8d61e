"""Relabelling, then the filter, then weights: each on what the one before leaves; refusals."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from w2s_ray.objectives.label_rows import best_rows, confidence, confidence_weights, support
from w2s_ray.order import hashes
from w2s_ray.plan.configs import LabelTreatment
from w2s_ray.steps.opinions import Opinions
from w2s_ray.steps.treatment import LabelSet, Treatments, label_facts

ROWS = 60
IDS = [f"row {n}" for n in range(ROWS)]
FOLDS, TIES = hashes(IDS, "opinions"), hashes(IDS, "label_filter")
PRESENT = np.flatnonzero(np.arange(ROWS) % 6 != 0)  # the others are left out


def states(per_row: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(ROWS, per_row, 4)).astype(np.float32)


def labels(classes: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    return rng.dirichlet(np.ones(classes), ROWS).astype(np.float32)[PRESENT]


def label_set(per_row: int, classes: int, name: str = "a") -> LabelSet:
    return LabelSet((name,), ("features",), PRESENT, labels(classes), lambda: states(per_row))


@pytest.mark.parametrize(("per_row", "classes"), [(2, 2), (1, 2), (1, 5)])
def test_the_order_is_relabel_filter_weights(per_row: int, classes: int) -> None:
    wanted = LabelTreatment(
        relabel="knn", filter_by="probe", keep=0.4, example_weight="confidence", neighbours=3
    )
    treated = Treatments(IDS, per_row)(label_set(per_row, classes), wanted)
    x, own = states(per_row)[PRESENT], labels(classes)
    opinions = Opinions(x, FOLDS[PRESENT])
    new = opinions("knn", own, 3)
    kept = best_rows(support(new, opinions("probe", new, 3)), TIES[PRESENT], 0.4)
    np.testing.assert_array_equal(treated.rows, PRESENT[kept])
    np.testing.assert_array_equal(treated.soft_labels, new[kept])
    assert treated.weights is not None
    np.testing.assert_array_equal(treated.weights, confidence_weights(new[kept]))
    assert treated.relabelled == (new.argmax(1) != own.argmax(1)).sum() > 0


def test_without_a_treatment_nothing_is_copied_and_no_features_are_read() -> None:
    def unread() -> Any:
        raise AssertionError("features were read")

    given = LabelSet(("a",), ("features",), PRESENT, labels(2), unread)
    treated = Treatments(IDS, 2)(given, LabelTreatment())
    assert treated.rows is PRESENT and treated.soft_labels is given.soft_labels
    assert treated.weights is None and treated.relabelled is None
    kept = Treatments(IDS, 2)(given, LabelTreatment(filter_by="confidence", keep=0.5)).rows
    weakest = confidence(given.soft_labels[~np.isin(PRESENT, kept)]).max()
    assert confidence(given.soft_labels[np.isin(PRESENT, kept)]).min() >= weakest


@pytest.mark.parametrize("by", ["confidence", "margin_to_prior", "probe", "knn"])
def test_shares_are_nested_and_what_a_judge_says_is_computed_once(
    monkeypatch: pytest.MonkeyPatch, by: Any
) -> None:
    calls: list[str] = []
    said = Opinions.__call__

    def counted(self: Opinions, judge: Any, *arguments: Any) -> Any:
        calls.append(judge)
        return said(self, judge, *arguments)

    monkeypatch.setattr(Opinions, "__call__", counted)
    treatments = Treatments(IDS, 1)
    rows: set[int] = set()
    for keep in (0.2, 0.5, 0.9):
        more = set(treatments(label_set(1, 5), LabelTreatment(filter_by=by, keep=keep)).rows)
        assert rows < more
        rows = more
    treatments(label_set(1, 5, "other labels"), LabelTreatment(filter_by=by, keep=0.5))
    assert calls == ([by] * 2 if by in ("probe", "knn") else [])


def test_pairs_have_the_prior_one_half_and_texts_that_of_their_labels() -> None:
    by_margin, by_confidence = (
        LabelTreatment(filter_by=by, keep=0.3) for by in ("margin_to_prior", "confidence")
    )
    skewed = np.clip(labels(2)[:, 1] * 0.4 + 0.6, 0, 1)
    skewed_labels = np.stack([1 - skewed, skewed], axis=1).astype(np.float32)
    given = LabelSet(("a",), ("features",), PRESENT, skewed_labels, lambda: states(1))
    pairs, texts = (Treatments(IDS, per_row) for per_row in (2, 1))
    same = pairs(given, by_confidence).rows
    np.testing.assert_array_equal(pairs(given, by_margin).rows, same)
    with pytest.raises(
        ValueError, match=r"15 rows that confidence keeps at 0\.3 all have one class"
    ):
        texts(given, by_confidence)
    mixed = skewed_labels.copy()
    mixed[:10] = mixed[:10, ::-1]
    kept = texts(LabelSet(("b",), ("features",), PRESENT, mixed, lambda: states(1)), by_margin)
    assert set(kept.soft_labels.argmax(1)) == {0, 1}


def test_a_share_of_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label_filter: 0\.009 of 50 rows is none; raise keep"):
        Treatments(IDS, 2)(label_set(2, 2), LabelTreatment(filter_by="knn", keep=0.009))


def test_facts_are_of_the_labels_as_learned() -> None:
    soft = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], np.float32)
    facts = label_facts(soft, np.array([1, 0, 1]))
    assert facts["trained_rows"] == 3
    assert facts["learned_label_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert facts["learned_label_confidence"] == pytest.approx((0.3 + 0 + 0.4) / 3)


def test_counts_do_not_depend_on_which_class_comes_first() -> None:
    """Labels without a top class, as noise of strength 0 leaves them, are of no class."""
    own = labels(2).copy()
    own[::3] = 0.5
    renamed = np.ascontiguousarray(own[:, ::-1])
    wanted = LabelTreatment(relabel="probe")

    def counted(soft_labels: NDArray[np.float32]) -> int | None:
        given = label_set(1, 2)._replace(soft_labels=soft_labels)
        return Treatments(IDS, 1)(given, wanted).relabelled

    assert counted(own) == counted(renamed)
    assert (counted(own) or 0) >= (own == 0.5).all(axis=1).sum()
