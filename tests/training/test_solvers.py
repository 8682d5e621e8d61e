"""Heads at the minimum: what both solvers and other libraries find, and what theory says of it."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from w2s_ray.objectives.divergence import LOSSES
from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.objectives.objective import Objective
from w2s_ray.training import solvers
from w2s_ray.training.engine import Adam
from w2s_ray.training.heads import FittedHead, HeadData, HeadJob, fit_heads

SHAPES = [(2, 2), (1, 2), (1, 3)]  # texts a row, classes
shapes = pytest.mark.parametrize(("per_row", "classes"), SHAPES)
both = pytest.mark.parametrize("solver", ["newton", "lbfgs"])


def problem(per_row, classes, rows=300, width=6, seed=0):
    """Predictions are asked for on the training rows themselves."""
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(rows, per_row, width)) * 3 + 1).astype(np.float32)
    test = pa.table({"row_id": [f"r{i}" for i in range(rows)], "label": np.zeros(rows, np.int64)})
    return HeadData(test["row_id"].to_pylist(), features, test, features, classes)


def linear_labels(data, seed, scale=0.3):
    """Labels of a random linear rule: a head can reproduce them exactly."""
    rng = np.random.default_rng(seed)
    x = data.features.astype(np.float64)
    if data.per_row == 2:
        margin = (x[:, 0] - x[:, 1]) @ (rng.normal(size=x.shape[2]) * scale)
        logits = np.stack([np.zeros_like(margin), margin], 1)
    else:
        logits = x[:, 0] @ (rng.normal(size=(x.shape[2], data.num_classes)) * scale)
        logits += rng.normal(size=data.num_classes)
    return softmax(logits, axis=1).astype(np.float32)


def weak_labels(data, seed=1):
    """A linear rule plus noise that no head can follow."""
    rng = np.random.default_rng(seed)
    logits = np.log(linear_labels(data, seed))
    return softmax(logits + rng.normal(size=logits.shape), axis=1).astype(np.float32)


def hard_labels(data, seed=2):
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(data.num_classes, p=p / p.sum()) for p in linear_labels(data, seed)]
    return np.eye(data.num_classes, dtype=np.float32)[drawn]


def job(soft_labels, loss="forward_kl", solver="newton", **changes):
    fields = {
        "soft_labels": soft_labels, "objective": Objective(loss), "seed": 0, "epochs": 1,
        "batch_size": 16, "learning_rate": 1e-2, "schedule": "cosine", "adam": Adam(),
        "solver": solver,
    }  # fmt: skip
    return HeadJob(**{**fields, **changes})


def fit(data, one):
    (fitted,) = fit_heads(data, [one])
    assert isinstance(fitted, FittedHead), fitted
    return fitted


def kl(p, q_logits):
    p = p.astype(np.float64)
    return float((p * (np.log(p) - log_softmax(q_logits.astype(np.float64), axis=1))).sum(1).mean())


@both
@shapes
def test_on_hard_labels_it_is_logistic_regression(per_row, classes, solver):
    data = problem(per_row, classes)
    labels = hard_labels(data)
    ours = fit(data, job(labels, solver=solver)).test_logits
    x = data.features[:, 0] - (data.features[:, 1] if per_row == 2 else 0)
    theirs = LogisticRegression(C=np.inf, fit_intercept=per_row == 1, max_iter=9999, tol=1e-12)
    theirs.fit(x.astype(np.float64), labels.argmax(1))
    np.testing.assert_allclose(
        softmax(ours, axis=1), theirs.predict_proba(x.astype(np.float64)), atol=2e-5
    )


@shapes
@pytest.mark.parametrize("loss", ["forward_ce", "forward_kl", "squared_hellinger", "jeffreys"])
def test_newton_and_lbfgs_find_one_minimum(per_row, classes, loss):
    data = problem(per_row, classes)
    newton, lbfgs = fit_heads(data, [job(weak_labels(data), loss, s) for s in ("newton", "lbfgs")])
    assert newton.metrics["converged"] and lbfgs.metrics["converged"]
    assert newton.metrics["final_loss"] == pytest.approx(lbfgs.metrics["final_loss"], abs=1e-10)
    np.testing.assert_allclose(newton.test_logits, lbfgs.test_logits, atol=1e-4)


@both
@shapes
def test_with_an_anchor_it_is_ridge(per_row, classes, solver):
    """The gradient of the mean loss plus λ/2 times the squared weights of all classes vanishes."""
    data, anchor = problem(per_row, classes), 0.05
    outputs = 1 if per_row == 2 else classes
    rows = torch.from_numpy(data.features[:, 0]).double() / 3
    one = job(weak_labels(data), "forward_ce", solver, adam=Adam(anchor=anchor))
    fitted = solvers.solve(rows, one, outputs)
    weights = fitted.weights.double().requires_grad_()
    logits = rows @ weights.T
    logits = torch.nn.functional.pad(logits, (1, 0)) if outputs == 1 else logits
    labels = torch.from_numpy(one.soft_labels).double()
    mean = -(labels * logits.log_softmax(1)).sum(1).mean()
    whole = mean + anchor / 2 * weights.square().sum()
    (slope,) = torch.autograd.grad(whole, weights)
    assert fitted.facts["converged"] and slope.abs().max() < 1e-6
    assert fitted.facts["final_loss"] == pytest.approx(whole.item(), abs=1e-8)
    free = solvers.solve(rows, job(one.soft_labels, "forward_ce", solver), outputs)
    assert weights.norm() < 0.9 * free.weights.norm()


def test_a_rule_without_exceptions_has_a_minimum_once_there_is_an_anchor():
    data = problem(2, 2)
    preferred = (data.features[:, 0] - data.features[:, 1]).sum(axis=1) > 0
    labels = np.eye(2, dtype=np.float32)[preferred.astype(int)]
    for solver in ("newton", "lbfgs"):
        one = job(labels, "forward_ce", solver, adam=Adam(anchor=1e-3))
        assert fit(data, one).metrics["converged"]


@both
@shapes
def test_the_pythagorean_identity_holds_at_the_minimum(per_row, classes, solver):
    """KL(F_w‖F*) = KL(F_w‖F_sw) + KL(F_sw‖F*) with F* in the head's reach (docs/losses.md §4)."""
    data = problem(per_row, classes)
    truth, weak = linear_labels(data, seed=7), weak_labels(data)
    student = fit(data, job(weak, "forward_kl", solver)).test_logits
    right = kl(weak, student) + kl(softmax(student.astype(np.float64), axis=1), np.log(truth))
    assert kl(weak, student) > 0.05
    assert kl(weak, np.log(truth)) == pytest.approx(right, abs=1e-5)


@shapes
@pytest.mark.parametrize(
    "loss",
    [n for n in LOSSES if n != "total_variation" and not DEFINITIONS[n].moves_target],
)
def test_newton_goes_downhill_on_every_smooth_loss(per_row, classes, loss):
    data = problem(per_row, classes)
    fitted = fit(data, job(weak_labels(data), loss))
    losses, norms = fitted.curve.loss, fitted.curve.gradient_norm
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert norms[-1] == fitted.metrics["gradient_norm"] < norms[0]
    if loss not in ("reverse_ce", "symmetric_ce", "confidence_adaptive_ce"):
        assert fitted.metrics["converged"]
        assert fitted.metrics["gradient_norm"] < 1e-7


@both
@shapes
def test_labels_within_reach_are_found_exactly_by_reverse_kl(per_row, classes, solver):
    data = problem(per_row, classes)
    labels = linear_labels(data, seed=4, scale=0.1)
    fitted = fit(data, job(labels, "reverse_kl", solver))
    assert fitted.metrics["converged"]
    assert fitted.metrics["final_loss"] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(softmax(fitted.test_logits, axis=1), labels, atol=1e-5)


@pytest.mark.long
@shapes
def test_training_by_batches_comes_near_the_minimum_and_never_below(per_row, classes):
    data = problem(per_row, classes)
    newton, batches = fit_heads(
        data,
        [
            job(weak_labels(data)),
            job(weak_labels(data), solver="sgd", epochs=300, batch_size=100, learning_rate=0.03),
        ],
    )
    least = newton.metrics["final_loss"]
    reached = kl(weak_labels(data), batches.test_logits)
    assert least - 1e-6 <= reached <= least + 1e-5
    np.testing.assert_allclose(
        softmax(batches.test_logits, axis=1), softmax(newton.test_logits, axis=1), atol=5e-3
    )


@both
@pytest.mark.parametrize("kind", ["separable", "separable in one feature"])
def test_where_there_is_no_minimum_it_says_so(solver, kind):
    """A rule without exceptions, for all rows or for those with a feature that others lack."""
    data = problem(2, 2)
    x = data.features[:, 0] - data.features[:, 1]
    if kind == "separable":
        preferred = x.sum(axis=1) > 0
    else:
        rare = np.arange(len(x)) % 10 == 0
        features = data.features.copy()
        features[:, :, 0] = 0
        features[rare, 0, 0] = 1
        data = HeadData(data.row_ids, features, data.test, features, 2)
        preferred = hard_labels(data).argmax(1).astype(bool) | rare
    fitted = fit(data, job(np.eye(2, dtype=np.float32)[preferred.astype(int)], solver=solver))
    assert fitted.metrics["converged"] is False
    assert fitted.metrics["iterations"] <= solvers.MAX_ITERATIONS[solver]
    assert np.isfinite(fitted.test_logits).all()
    right = expit(fitted.test_logits[:, 1]) > 0.5
    assert (right == preferred)[:: 1 if kind == "separable" else 10].all()


@both
def test_equal_labels_need_no_iteration(solver):
    data = problem(1, 3)
    fitted = fit(data, job(np.full((300, 3), 1 / 3, np.float32), solver=solver))
    assert fitted.metrics["iterations"] == 0
    assert fitted.metrics["converged"] and not fitted.test_logits.any()


@both
def test_more_features_than_rows_still_end(solver):
    data = problem(2, 2, rows=20, width=50)
    fitted = fit(data, job(weak_labels(data), solver=solver))
    assert fitted.metrics["final_loss"] < 1e-7  # float32 labels sum to 1 to that
    assert np.isfinite(fitted.test_logits).all()


@both
def test_weights_of_classes_are_centred(solver):
    """Adding one rule to all classes changes no prediction; the smallest such head is stored."""
    data = problem(1, 3)
    state = fit(data, job(weak_labels(data), solver=solver)).state
    np.testing.assert_allclose(state["head.weight"].sum(0), 0, atol=1e-6)
    np.testing.assert_allclose(state["head.bias"].sum(), 0, atol=1e-5)


def test_the_curve_has_an_entry_before_each_iteration_and_one_at_the_end():
    data = problem(2, 2)
    fitted = fit(data, job(weak_labels(data)))
    assert len(fitted.curve.loss) == fitted.metrics["iterations"] + 1
    assert fitted.curve.loss[-1] == fitted.metrics["final_loss"]
    assert set(fitted.curve.learning_rate) == set(fitted.curve.alpha) == {0.0}
    assert len(fitted.curve.alpha) == len(fitted.curve.gradient_norm) == len(fitted.curve.loss)


def test_what_a_solver_cannot_do_is_refused_and_the_rest_is_done(monkeypatch):
    data = problem(2, 2)
    labels = weak_labels(data)
    monkeypatch.setattr(solvers, "NEWTON_PARAMETERS", 5)
    confident = Objective("forward_kl", confidence_weight=0.5)
    *refused, fine, batches = fit_heads(
        data,
        [
            job(labels, objective=confident),
            job(labels),
            job(labels, "product_loss"),
            job(labels, solver="simplex"),
            job(np.full_like(labels, np.nan), solver="lbfgs"),
            job(labels, solver="lbfgs"),
            job(labels, solver="sgd"),
        ],
    )
    texts = [
        "confidence_weight 0.5",
        "6 parameters",
        "loss product_loss",
        "'simplex' is not one of",
    ]
    texts.append("loss is nan")
    for error, text in zip(refused, texts, strict=True):
        assert isinstance(error, ValueError | FloatingPointError) and text in str(error)
    assert isinstance(fine, FittedHead) and isinstance(batches, FittedHead)
