"""Errors of two models against each other: counted row by row, and with ties broken at random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

from w2s_ray.steps import error_metrics, metrics
from w2s_ray.steps.error_metrics import Errors


def models(seed, n, k):
    rng = np.random.default_rng(seed)
    student, weak = (metrics.softmax(rng.normal(scale=2, size=(n, k))) for _ in range(2))
    return student, weak, rng.integers(0, k, n)


def share(rows, of):
    return None if not of else len([row for row in of if row in rows]) / len(of)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 60))
def test_rates_are_counts_of_rows(seed, k, n):
    student, weak, labels = models(seed, n, k)
    s, w = student.argmax(1), weak.argmax(1)
    wrong = [i for i in range(n) if w[i] != labels[i]]
    right = [i for i in range(n) if w[i] == labels[i]]
    expected = {
        "error_inheritance": share([i for i in range(n) if s[i] == w[i]], wrong),
        "error_correction": share([i for i in range(n) if s[i] == labels[i]], wrong),
        "new_errors": share([i for i in range(n) if s[i] != labels[i]], right),
    }
    rates = Errors.of(student, weak, labels).rates()
    for name, value in expected.items():
        assert rates[name] == (None if value is None else pytest.approx(value)), name
    assert error_metrics.agreement(student, weak) == pytest.approx(float((s == w).mean()))


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_phi_and_kappa_agree_with_scikit_learn(seed, k):
    student, weak, labels = models(seed, 80, k)
    errors = Errors.of(student, weak, labels)
    s, w = student.argmax(1) != labels, weak.argmax(1) != labels
    assert errors.phi() == pytest.approx(matthews_corrcoef(w, s))
    assert errors.kappa() == pytest.approx(cohen_kappa_score(w, s))


def test_for_two_classes_an_error_is_inherited_or_corrected():
    errors = Errors.of(*models(0, 200, 2))
    rates = errors.rates()
    assert rates["error_inheritance"] + rates["error_correction"] == pytest.approx(1.0)


def test_ties_count_as_if_they_were_broken_at_random():
    rng = np.random.default_rng(0)
    tied = np.array([[0.5, 0.5], [0.4, 0.4], [0.1, 0.9], [0.5, 0.5]])
    other = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    labels = np.array([0, 1, 1, 1])
    rates, agreed = Errors.of(tied, other, labels).rates(), error_metrics.agreement(tied, other)
    broken = []
    for _ in range(4000):
        s, w = (m + rng.uniform(0, 1e-6, m.shape) for m in (tied, other))
        broken.append([*(Errors.of(s, w, labels)), error_metrics.agreement(s, w)])
    wrong, student_wrong, same, agree = (np.stack([b[i] for b in broken]) for i in range(4))
    assert agreed == pytest.approx(agree.mean(), abs=0.02)
    assert rates["error_inheritance"] == pytest.approx(same.sum() / wrong.sum(), abs=0.02)
    corrected = (wrong * (1 - student_wrong)).sum() / wrong.sum()
    assert rates["error_correction"] == pytest.approx(corrected, abs=0.02)


def test_rates_without_rows_are_missing_not_zero():
    labels = np.array([0, 1, 0])
    sure = np.eye(2)[labels] * 0.8 + 0.1
    errors = Errors.of(sure, sure, labels)
    assert errors.rates() == {
        "error_inheritance": None,
        "error_correction": None,
        "new_errors": 0.0,
    }
    assert errors.phi() is None
    assert errors.kappa() is None


def test_deciles_split_all_rows_and_their_errors():
    student, weak, labels = models(3, 500, 3)
    errors = Errors.of(student, weak, labels)
    deciles = error_metrics.by_weak_confidence(errors, error_metrics.deciles(weak))
    assert sum(d["rows"] for d in deciles) == 500
    assert all(d["rows"] == 50 for d in deciles)
    assert [d["from"] for d in deciles] == sorted(d["from"] for d in deciles)
    top = weak.max(axis=1)
    least = errors.rates_by((top >= deciles[0]["to"]).astype(np.int64), 2)[0]
    assert {name: deciles[0][name] for name in least} == least


def test_rows_of_one_confidence_stay_together():
    weak = np.array([[0.6, 0.4]] * 30 + [[0.9, 0.1]] * 2)
    errors = Errors.of(weak, weak, np.zeros(32, dtype=np.int64))
    deciles = error_metrics.by_weak_confidence(errors, error_metrics.deciles(weak))
    assert [d["rows"] for d in deciles if d["rows"]] == [30, 2]


def test_a_blind_spot_is_a_confident_error_where_the_weak_model_is_unsure():
    student = np.array([[0.95, 0.05], [0.95, 0.05], [0.85, 0.15], [0.95, 0.05]])
    weak = np.array([[0.45, 0.55], [0.2, 0.8], [0.45, 0.55], [0.55, 0.45]])
    labels = np.array([1, 1, 1, 0])
    errors = Errors.of(student, weak, labels)
    assert error_metrics.blind_spots(student, weak, errors) == 0.25
