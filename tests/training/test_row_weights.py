"""Weights of rows: ones are none, integers are repeated rows, and every loop weighs alike."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.testing.jobs import MODEL
from tests.testing.jobs import job as train_job
from tests.training.test_batched_heads import (
    assert_close,
    assert_same,
    by_the_loop,
    job,
    mixture,
    problem,
    shapes,
)
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.training.head_job import HeadJob
from w2s_ray.training.heads import FittedHead, fit_heads
from w2s_ray.training.job import memory_stream, rows_to_train_on
from w2s_ray.training.solvers import solve

ROWS = 90


def drawn_weights(seed: int, rows: int = ROWS) -> NDArray[np.float32]:
    """Weights with mean 1, one of which is 0."""
    raw = np.random.default_rng(seed).exponential(size=rows)
    raw[3] = 0.0
    return (raw / raw.mean()).astype(np.float32)


def fitted(data: Any, jobs: list[HeadJob]) -> list[FittedHead]:
    heads = fit_heads(data, jobs)
    assert all(isinstance(head, FittedHead) for head in heads), heads
    return [head for head in heads if isinstance(head, FittedHead)]


@shapes
def test_weights_of_one_are_none_bit_for_bit(per_row: int, classes: int) -> None:
    data = problem(per_row, classes)
    plain = [*mixture(data, 1), job(data, solver="newton"), job(data, solver="lbfgs")]
    ones = np.ones(ROWS, np.float32)
    for weighted, none in zip(
        fitted(data, [replace(one, weights=ones) for one in plain]),
        fitted(data, plain),
        strict=True,
    ):
        assert_same(weighted, none)


@shapes
def test_weighted_heads_of_a_group_are_what_the_loop_makes_of_each(
    per_row: int, classes: int
) -> None:
    data = problem(per_row, classes)
    plain = mixture(data, 2)
    jobs = [
        replace(one, weights=None if index % 3 == 0 else drawn_weights(index))
        for index, one in enumerate(plain)
    ]
    heads = fitted(data, jobs)
    for head, one in zip(heads, jobs, strict=True):
        logits, curve = by_the_loop(data, one)
        assert_close(head.test_logits, logits, one)
        assert_close(head.curve.loss, curve.loss, one)
    # Weights of others do not reach a head without.
    assert_same(heads[0], fitted(data, plain[:1])[0])
    assert np.abs(heads[1].test_logits - fitted(data, plain[1:2])[0].test_logits).max() > 1e-4


@shapes
@pytest.mark.parametrize("loss", ["forward_ce", "reverse_kl"])
def test_integer_weights_are_repeated_rows_at_the_optimum(
    per_row: int, classes: int, loss: str
) -> None:
    data = problem(per_row, classes, width=5)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, ROWS)
    features = torch.from_numpy(rng.normal(size=(ROWS, 5)))
    one = job(data, loss, solver="newton")
    weighted = replace(one, weights=(counts / counts.mean()).astype(np.float32))
    repeated = replace(one, soft_labels=one.soft_labels.repeat(counts, axis=0))
    outputs = 1 if per_row == 2 else classes
    by_weight = solve(features, weighted, outputs)
    by_row = solve(features.repeat_interleave(torch.from_numpy(counts), dim=0), repeated, outputs)
    assert by_weight.facts["converged"] and by_row.facts["converged"]
    np.testing.assert_allclose(by_weight.weights, by_row.weights, atol=1e-5)
    assert by_weight.facts["final_loss"] == pytest.approx(by_row.facts["final_loss"], abs=1e-6)


def test_weights_of_whole_models_follow_their_rows_into_micro_batches() -> None:
    plain = replace(train_job(), execution=replace(train_job().execution, micro_batch_tokens=64))
    tokens = plain.encoded(plain.rows, load_tokenizer(MODEL))
    weights = drawn_weights(0, plain.rows.num_rows)
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
