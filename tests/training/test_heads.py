"""A head on stored features: standardised for training, stored for raw features."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from w2s_ray.data.labels import as_column
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam
from w2s_ray.training.heads import HeadJob, fit_head, head_logits


def problem(per_row, n=400, width=8, seed=0):
    """Rows whose label follows a noisy linear rule on badly scaled features."""
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-3, 3, width)
    features = (rng.normal(size=(n, per_row, width)) * scales + scales).astype(np.float32)
    rule = rng.normal(size=width) / scales
    margin = (features[:, 0] - features[:, 1] if per_row == 2 else features[:, 0] - scales) @ rule
    labels = (rng.uniform(size=n) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    table = pa.table(
        {
            "row_id": [f"{seed}-{i}" for i in range(n)],
            "label": labels,
            "probs": as_column(np.eye(2, dtype=np.float32)[labels]),
        }
    )
    return table, features


def job(per_row, **changes):
    table, features = problem(per_row)
    settings = {
        "rows": table, "test": table, "features": features, "test_features": features,
        "num_classes": 2, "per_row": per_row, "objective": Objective(), "seed": 0, "epochs": 1,
        "batch_size": 16, "learning_rate": 1e-2, "schedule": "cosine", "adam": Adam(),
    }  # fmt: skip
    return HeadJob(**{**settings, **changes})


@pytest.mark.parametrize("per_row", [1, 2])
def test_trained_to_the_end_it_is_logistic_regression(tmp_path, per_row):
    settings = job(per_row, epochs=3000, learning_rate=0.05, batch_size=400)
    fit_head(settings, tmp_path)
    ours = head_logits(tmp_path, settings.features)
    margin = ours[:, 1] - ours[:, 0]
    x = settings.features[:, 0] - (settings.features[:, 1] if per_row == 2 else 0)
    x = StandardScaler(with_mean=per_row == 1).fit_transform(x)
    theirs = LogisticRegression(C=1e8, fit_intercept=per_row == 1, max_iter=5000, tol=1e-10)
    theirs.fit(x, settings.rows["label"].to_numpy())
    np.testing.assert_allclose(margin, theirs.decision_function(x), atol=0.05)


def test_turning_every_pair_round_turns_every_prediction(tmp_path):
    settings = job(2)
    fit_head(settings, tmp_path)
    turned = settings.test_features[:, ::-1].copy()
    straight = head_logits(tmp_path, settings.test_features)
    np.testing.assert_allclose(head_logits(tmp_path, turned)[:, 1], -straight[:, 1], rtol=1e-5)


def test_stored_predictions_are_those_of_the_stored_head(tmp_path):
    settings = job(2)
    fit_head(settings, tmp_path)
    stored = np.stack(pq.read_table(tmp_path / "test.parquet")["probs"].to_numpy())
    logits = torch.from_numpy(head_logits(tmp_path, settings.test_features)).double()
    np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), stored, atol=1e-12)


def test_forward_ce_and_forward_kl_walk_one_path(tmp_path):
    paths = []
    for loss in ("forward_ce", "forward_kl"):
        folder = tmp_path / loss
        folder.mkdir()
        rng = np.random.default_rng(1)
        weak = rng.uniform(0.1, 0.9, 400).astype(np.float32)
        settings = job(2, objective=Objective(loss))
        soft = settings.rows.set_column(2, "probs", as_column(np.stack([1 - weak, weak], 1)))
        fit_head(job(2, objective=Objective(loss), rows=soft), folder)
        paths.append(head_logits(folder, settings.features))
    np.testing.assert_allclose(*paths, atol=1e-5)
