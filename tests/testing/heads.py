"""Heads on made-up features, and jobs that differ in everything a job has."""

import numpy as np
import pyarrow as pa
import torch

from w2s_ray.objectives.divergence import LOSSES
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam
from w2s_ray.training.head_job import HeadJob
from w2s_ray.training.heads import HeadData

OTHER_PARAMETERS = {
    "generalised_jensen_shannon": (("b", 0.8),),
    "alpha_divergence": (("a", 0.2),),
    "symmetric_ce": (("a", 0.7), ("b", 0.4)),
    "confidence_adaptive_ce": (("c", 0.2),),
    "product_loss": (("a", 1.5), ("b", 0.4)),
}


def problem(per_row, classes, rows=90, width=24, seed=0):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-2, 2, width)

    def features(n):
        return (rng.normal(size=(n, per_row, width)) * scales + scales).astype(np.float32)

    test = pa.table({"row_id": [f"t{i}" for i in range(30)], "label": rng.integers(0, classes, 30)})
    return HeadData([f"r{i}" for i in range(rows)], features(rows), test, features(30), classes)


def labels(data, seed):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(data.num_classes), len(data.row_ids)).astype(np.float32)


def job(data, loss="forward_ce", *, labels_seed=0, confidence=0.0, **changes):
    fields = {
        "soft_labels": labels(data, labels_seed),
        "objective": Objective(loss, confidence_weight=confidence),
        "seed": 0, "epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "schedule": "cosine",
        "adam": Adam(),
    }  # fmt: skip
    return HeadJob(**{**fields, **changes})


def mixture(data, per_loss, seed=0):
    """``per_loss`` jobs of each loss, the losses in turn, that differ in everything a job has.

    The jobs of a loss are drawn from its name, so that a new loss changes no job of another one.
    """
    draws = {loss: np.random.default_rng([seed, *loss.encode()]) for loss in LOSSES}
    return [drawn(data, loss, rng) for _ in range(per_loss) for loss, rng in draws.items()]


def drawn(data, loss, rng):
    """The next job of ``loss``: any of a few values for each field."""

    def one_of(*values):
        return values[rng.integers(len(values))]

    return HeadJob(
        soft_labels=labels(data, int(rng.integers(4))),
        objective=Objective(
            loss,
            OTHER_PARAMETERS.get(loss, ()) if one_of(True, False) else (),
            confidence_weight=one_of(0.0, 0.5, 1.0),
            confidence_warmup=one_of(0.0, 0.2, 0.7),
            confidence_form=one_of("target", "sum"),
            label_clip=one_of(1e-3, 0.05),
        ),
        seed=one_of(0, 1, 2),
        epochs=one_of(1, 2),
        batch_size=one_of(7, 16),
        learning_rate=one_of(1e-3, 1e-2, 3e-2),
        schedule=one_of("cosine", "constant"),
        adam=one_of(
            Adam(),
            Adam((0.8, 0.95), 1e-6, clip_norm=0.2),
            Adam(weight_decay=2.0),
            Adam((0.8, 0.95), 1e-6, clip_norm=0.2, weight_decay=0.5, anchor=0.3),
        ),
    )


def assert_same(ours, theirs):
    """Bit for bit: weights, predictions and curve."""
    assert ours.state.keys() == theirs.state.keys()
    for name, tensor in ours.state.items():
        assert torch.equal(tensor, theirs.state[name])
    np.testing.assert_array_equal(ours.test_logits, theirs.test_logits)
    for name in ("loss", "gradient_norm", "learning_rate", "alpha"):
        assert getattr(ours.curve, name) == getattr(theirs.curve, name), name
