"""A head on stored features: standardised for training, stored for raw features."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tests.testing.linear_scorer import LinearScorer
from w2s_ray.contents import read_tensors, write_content
from w2s_ray.half_logits import relative
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam
from w2s_ray.training.heads import HEAD, HeadData, HeadJob, fit_heads, head_contents, heads_logits


def problem(per_row, n=400, width=8, seed=0):
    """Rows whose label follows a noisy linear rule on badly scaled features."""
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-3, 3, width)
    features = (rng.normal(size=(n, per_row, width)) * scales + scales).astype(np.float32)
    rule = rng.normal(size=width) / scales
    margin = (features[:, 0] - features[:, 1] if per_row == 2 else features[:, 0] - scales) @ rule
    labels = (rng.uniform(size=n) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    table = pa.table({"row_id": [f"{seed}-{i}" for i in range(n)], "label": labels})
    return HeadData(table["row_id"].to_pylist(), features, table, features, 2)


def job(data, **changes):
    """A head that learns the true labels."""
    fields = {
        "soft_labels": np.eye(2, dtype=np.float32)[data.test["label"].to_numpy()],
        "objective": Objective(), "seed": 0, "epochs": 1, "batch_size": 16,
        "learning_rate": 1e-2, "schedule": "cosine", "adam": Adam(),
    }  # fmt: skip
    return HeadJob(**{**fields, **changes})


def fit(data, out, **changes):
    """One head, fitted and written."""
    (fitted,) = fit_heads(data, [job(data, **changes)])
    for name, content in head_contents(fitted, data.test).items():
        write_content(out / name, content)
    return fitted


def head_logits(folder, features):
    """(n, K) logits of a stored head."""
    return heads_logits([read_tensors(folder / HEAD)], features)[0]


@pytest.mark.parametrize("per_row", [1, 2])
def test_at_the_minimum_it_is_logistic_regression(tmp_path, per_row):
    data = problem(per_row)
    fit(data, tmp_path, solver="newton")
    ours = head_logits(tmp_path, data.features)
    margin = ours[:, 1] - ours[:, 0]
    x = data.features[:, 0] - (data.features[:, 1] if per_row == 2 else 0)
    x = StandardScaler(with_mean=per_row == 1).fit_transform(x)
    theirs = LogisticRegression(C=1e8, fit_intercept=per_row == 1, max_iter=5000, tol=1e-10)
    theirs.fit(x, data.test["label"].to_numpy())
    np.testing.assert_allclose(margin, theirs.decision_function(x), atol=1e-3)


def test_turning_every_pair_round_turns_every_prediction(tmp_path):
    data = problem(2)
    fit(data, tmp_path)
    turned = data.test_features[:, ::-1].copy()
    straight = head_logits(tmp_path, data.test_features)
    np.testing.assert_allclose(head_logits(tmp_path, turned)[:, 1], -straight[:, 1], rtol=1e-5)


@pytest.mark.parametrize("per_row", [1, 2])
def test_stored_predictions_are_those_of_the_stored_head(tmp_path, per_row):
    data = problem(per_row)
    fitted = fit(data, tmp_path)
    table = pq.read_table(tmp_path / "test.parquet")
    assert table.select(["row_id", "label"]).equals(data.test)
    logits = torch.from_numpy(head_logits(tmp_path, data.test_features)).double()
    stored = np.stack(table["probs"].to_numpy())
    np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), stored, atol=1e-12)
    np.testing.assert_array_equal(logits.numpy(), fitted.test_logits)


@pytest.mark.parametrize("per_row", [1, 2])
def test_the_stored_head_reads_raw_features_as_the_scorer_does(tmp_path, per_row):
    """``head.safetensors`` is a scorer's state, for whoever loads it without this module."""
    data = problem(per_row)
    fit(data, tmp_path)
    scorer = LinearScorer.from_state(load_file(tmp_path / "head.safetensors"), per_row).double()
    with torch.no_grad():
        weight = scorer.head.weight
        assert weight.shape == (1 if per_row == 2 else 2, data.features.shape[2])
        raw = torch.from_numpy(data.features).double()
        outputs = raw.flatten(0, 1) @ weight.T + (scorer.head.bias if per_row == 1 else 0)
        outputs = outputs.view(len(raw), -1).numpy()
    ours = head_logits(tmp_path, data.features)
    margin = outputs[:, 0] - outputs[:, 1] if per_row == 2 else outputs[:, 1] - outputs[:, 0]
    np.testing.assert_allclose(ours[:, 1] - ours[:, 0], margin, rtol=1e-5, atol=1e-5)


def test_the_stored_curve_is_the_training(tmp_path):
    data = problem(2)
    fitted = fit(data, tmp_path, objective=Objective(confidence_weight=0.5))
    curve = pq.read_table(tmp_path / "curve.parquet")
    assert curve["step"].to_pylist() == list(range(1, 26))
    for name in ("loss", "learning_rate", "gradient_norm", "alpha"):
        assert curve[name].to_pylist() == getattr(fitted.curve, name)
    assert curve["loss"][0].as_py() == pytest.approx(np.log(2), abs=1e-6)
    assert curve["alpha"].to_pylist()[:6] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert fitted.metrics["steps"] == 25
    assert fitted.metrics["final_loss"] < fitted.metrics["first_loss"]
    assert "tokens" not in fitted.metrics


def test_forward_ce_and_forward_kl_walk_one_path():
    data = problem(2)
    weak = np.random.default_rng(1).uniform(0.1, 0.9, 400).astype(np.float32)
    soft_labels = np.stack([1 - weak, weak], 1)
    jobs = [
        job(data, objective=Objective(loss), soft_labels=soft_labels)
        for loss in ("forward_ce", "forward_kl")
    ]
    ce, kl = fit_heads(data, jobs)
    np.testing.assert_allclose(ce.test_logits, kl.test_logits, atol=1e-5)


def test_features_far_from_zero_lose_no_digits():
    """A shift of all raw features by a power of two changes no standardised feature."""
    data = problem(1)
    near = np.round(data.features[:, :, :1] / 8.0) / 64.0
    far = near + 4096.0
    fitted = [
        fit_heads(HeadData(data.row_ids, x, data.test, x, 2), [job(data)])[0] for x in (near, far)
    ]
    np.testing.assert_allclose(fitted[0].test_logits, fitted[1].test_logits, rtol=1e-3, atol=1e-3)


def test_other_rows_are_scored_as_the_test_rows_are():
    plain = problem(2)
    with_others = replace(plain, also_scored=plain.test_features)
    (alone,), (scored,) = (fit_heads(rows, [job(rows)]) for rows in (plain, with_others))
    assert alone.other_logits is None
    np.testing.assert_array_equal(scored.test_logits, alone.test_logits)
    np.testing.assert_array_equal(scored.other_logits, relative(alone.test_logits))
