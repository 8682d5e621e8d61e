"""Weights of rows: integers are repeated rows, and weights follow their rows into batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.testing.jobs import MODEL, job
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam
from w2s_ray.training.head_job import HeadJob
from w2s_ray.training.job import memory_stream, rows_to_train_on
from w2s_ray.training.solvers import solve


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("loss", ["forward_ce", "reverse_kl"])
def test_integer_weights_are_repeated_rows_at_the_optimum(
    solver: str, classes: int, loss: str
) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 90)
    rows = torch.from_numpy(rng.normal(size=(90, 5)))
    labels = rng.dirichlet(np.ones(classes), 90).astype(np.float32)
    weights = (counts / counts.mean()).astype(np.float32)
    one = HeadJob(labels, Objective(loss), 0, 1, 16, 1e-2, "cosine", Adam(), solver, weights)
    repeated = replace(one, soft_labels=labels.repeat(counts, axis=0), weights=None)
    outputs = 1 if classes == 2 else classes
    by_weight = solve(rows, one, outputs)
    by_row = solve(rows.repeat_interleave(torch.from_numpy(counts), dim=0), repeated, outputs)
    assert by_weight.facts["converged"] and by_row.facts["converged"]
    np.testing.assert_allclose(by_weight.weights, by_row.weights, atol=1e-5)
    assert by_weight.facts["final_loss"] == pytest.approx(by_row.facts["final_loss"], abs=1e-6)


def test_weights_of_whole_models_follow_their_rows_into_micro_batches() -> None:
    plain = job(execution=replace(job().execution, micro_batch_tokens=64))
    tokens = plain.encoded(plain.rows, load_tokenizer(MODEL))
    raw = np.random.default_rng(0).exponential(size=plain.rows.num_rows)
    weights = (raw / raw.mean()).astype(np.float32)
    plain, tokens = rows_to_train_on(plain, tokens)
    ones = replace(plain, weights=np.ones_like(weights))
    for none, one, some in zip(
        memory_stream(plain, tokens),
        memory_stream(ones, tokens),
        memory_stream(replace(plain, weights=weights), tokens),
        strict=True,
    ):
        assert len(none) == len(one) == len(some) > 1
        size = sum(len(batch.weights) for batch in none)
        assert sum(float(batch.weights.sum()) for batch in none) == pytest.approx(1.0)
        for left, middle, right in zip(none, one, some, strict=True):
            assert torch.equal(left.weights, middle.weights)
            assert torch.equal(left.soft_labels, right.soft_labels)
            # The labels are all different, so they say which rows are in a micro-batch.
            rows = [
                int(np.flatnonzero((plain.soft_labels == label).all(axis=1))[0])
                for label in left.soft_labels.numpy()
            ]
            np.testing.assert_allclose(right.weights.numpy(), weights[rows] / size, rtol=1e-6)
