"""Heads fused into one problem are the heads trained alone, by the flat loop, one at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.testing.heads import assert_same, job, labels, mixture, problem
from tests.testing.linear_scorer import LinearScorer
from w2s_ray.data.batches import epoch_order, optimizer_batches
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.batched_heads import train_batched
from w2s_ray.training.batched_objectives import Thresholds
from w2s_ray.training.engine import Batch, TorchEngine
from w2s_ray.training.head_job import Inputs
from w2s_ray.training.heads import FittedHead, fit_heads
from w2s_ray.training.loop import learning_rate_at, train

SHAPES = [(2, 2), (1, 2), (1, 3)]  # texts a row, classes
shapes = pytest.mark.parametrize(("per_row", "classes"), SHAPES)


def by_the_loop(data, job):
    """(test logits, curve) of one head by the flat training loop, engine and scorer."""
    features = torch.from_numpy(data.features)
    mean = features.mean(dim=(0, 1))
    scale = features.std(dim=(0, 1), correction=0)
    scaled = (features - mean) / scale
    scorer = LinearScorer(features.shape[2], data.num_classes, data.per_row)
    soft_labels = torch.from_numpy(job.soft_labels)

    def stream():
        for epoch in range(job.epochs):
            order = epoch_order(data.row_ids, job.seed, epoch)
            for rows in optimizer_batches(order, job.batch_size):
                weights = torch.full((len(rows),), 1.0 / len(rows))
                if job.weights is not None:
                    weights *= torch.from_numpy(job.weights[rows])
                yield [Batch({"features": scaled[rows]}, soft_labels[rows], weights, tokens=0)]

    needs_buffer = data.per_row == 1 and data.num_classes == 2 and job.objective.confidence_weight
    curve = train(
        TorchEngine(scorer, list(scorer.parameters()), job.adam),
        stream(),
        job.objective,
        total_steps=job.epochs * -(-len(data.row_ids) // job.batch_size),
        learning_rate=job.learning_rate,
        schedule=job.schedule,
        buffer=ThresholdBuffer(float(job.soft_labels[:, 1].mean())) if needs_buffer else None,
    )
    with torch.no_grad():
        return scorer((torch.from_numpy(data.test_features) - mean) / scale).numpy(), curve


def assert_close(ours, theirs, what):
    """To 1e-6 of the larger of 1 and the largest of theirs."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(1, np.abs(theirs).max()),
                               err_msg=str(what))  # fmt: skip


@pytest.mark.long
@shapes
def test_each_of_a_mixed_group_is_what_the_loop_makes_of_it_alone(per_row, classes):
    data = problem(per_row, classes)
    jobs = mixture(data, 4)
    for fitted, one in zip(fit_heads(data, jobs), jobs, strict=True):
        logits, curve = by_the_loop(data, one)
        assert_close(fitted.test_logits, logits, one)
        assert_close(fitted.curve.loss, curve.loss, one)
        assert_close(fitted.curve.gradient_norm, curve.gradient_norm, one)
        assert fitted.curve.alpha == curve.alpha
        assert fitted.curve.learning_rate == curve.learning_rate
        assert fitted.metrics["steps"] == len(curve.loss)
        # One-sided differences would betray another objective, not rounding.
        assert abs(np.mean(fitted.test_logits - logits)) < 1e-7 * max(1, np.abs(logits).max())


@pytest.mark.long
@shapes
def test_fusing_changes_no_bit(per_row, classes):
    data = problem(per_row, classes)
    jobs = mixture(data, 4, seed=1)
    together = fit_heads(data, jobs)
    turned = fit_heads(data, jobs[::-1])[::-1]
    for index, one in enumerate(jobs):
        (alone,) = fit_heads(data, [one])
        assert_same(together[index], alone)
        assert_same(turned[index], alone)


@pytest.mark.parametrize("width", [5, 64, 577])
def test_like_heads_in_any_number_are_the_same_to_the_bit(width):
    """One pace, one seed, one objective: the case with the largest products."""
    data = problem(2, 2, width=width)
    jobs = [job(data, labels_seed=i, batch_size=32) for i in range(70)]
    together = fit_heads(data, jobs)
    for count in (1, 31, 32, 33):
        for some, one in zip(fit_heads(data, jobs[:count]), together, strict=False):
            assert_same(some, one)


@pytest.mark.parametrize("chunk_bytes", [1, 100_000])
def test_taking_turns_changes_no_bit(chunk_bytes):
    data = problem(1, 3)
    rows = torch.from_numpy(data.features[:, 0])
    inputs = Inputs(data.row_ids, rows / rows.std(dim=0), 3, 3)
    jobs = mixture(data, 3, seed=2)
    whole = train_batched(inputs, jobs)
    for one, other in zip(train_batched(inputs, jobs, chunk_bytes=chunk_bytes), whole, strict=True):
        assert torch.equal(one.weights, other.weights)
        assert one.curve.loss == other.curve.loss


def drawn_weights(seed, rows=90):
    """Weights of rows with mean 1, one of which is almost 0."""
    raw = np.random.default_rng(seed).exponential(size=rows)
    raw[3] = 1e-6
    return (raw / raw.mean()).astype(np.float32)


@shapes
def test_weights_of_one_are_none_bit_for_bit(per_row, classes):
    data = problem(per_row, classes)
    plain = [*mixture(data, 1), job(data, solver="newton"), job(data, solver="lbfgs")]
    ones = np.ones(len(data.row_ids), np.float32)
    weighted = fit_heads(data, [replace(one, weights=ones) for one in plain])
    for some, none in zip(weighted, fit_heads(data, plain), strict=True):
        assert_same(some, none)


@shapes
def test_weighted_heads_of_a_group_are_what_the_loop_makes_of_each(per_row, classes):
    data = problem(per_row, classes)
    plain = mixture(data, 2)
    jobs = [
        replace(one, weights=None if index % 3 == 0 else drawn_weights(index))
        for index, one in enumerate(plain)
    ]
    heads = fit_heads(data, jobs)
    for head, one in zip(heads, jobs, strict=True):
        logits, curve = by_the_loop(data, one)
        assert_close(head.test_logits, logits, one)
        assert_close(head.curve.loss, curve.loss, one)
    # Weights of others do not reach a head without.
    without = fit_heads(data, plain[:2])
    assert_same(heads[0], without[0])
    assert np.abs(heads[1].test_logits - without[1].test_logits).max() > 1e-4


def poisoned(data, how):
    """A job that cannot be trained: too fast, a label that is no number, a label beyond float32."""
    if how == "rate":
        return job(data, "reverse_kl", learning_rate=1e38)
    soft_labels = labels(data, 0)
    soft_labels[20] = {"label": np.nan, "gradient": 1e30}[how]
    return job(data, soft_labels=soft_labels)


@shapes
@pytest.mark.parametrize("how", ["rate", "label", "gradient"])
def test_a_head_that_diverges_says_when_and_leaves_the_others_alone(per_row, classes, how):
    data = problem(per_row, classes)
    good = [job(data, loss, confidence=0.5) for loss in ("forward_ce", "reverse_kl", "jeffreys")]
    bad = poisoned(data, how)
    with pytest.raises(FloatingPointError) as raised:
        by_the_loop(data, bad)
    first, error, *rest = fit_heads(data, [good[0], bad, *good[1:]])
    assert isinstance(error, FloatingPointError)
    assert str(error) == str(raised.value)
    for with_bad, without in zip([first, *rest], fit_heads(data, good), strict=True):
        assert_same(with_bad, without)


def test_a_group_in_which_every_head_diverges_gives_every_reason():
    data = problem(2, 2)
    bad = [poisoned(data, how) for how in ("rate", "label", "gradient")]
    errors = fit_heads(data, bad)
    assert [type(error) for error in errors] == [FloatingPointError] * 3
    assert [str(error).split(" at ")[0] for error in errors[1:]] == [
        "loss is nan", "the gradient's norm is inf",
    ]  # fmt: skip


def test_an_objective_that_the_classes_forbid_fails_by_itself():
    data = problem(1, 3)
    refused = job(data, objective=Objective(label_clip=0.4))
    bad, good = fit_heads(data, [refused, job(data)])
    assert isinstance(bad, ValueError) and "label_clip 0.4" in str(bad)
    assert isinstance(good, FittedHead)


def test_no_jobs_give_no_heads():
    assert fit_heads(problem(2, 2), []) == []


def test_labels_of_others_do_not_reach_a_head():
    """Two heads with mirrored labels learn mirrored rules, in one run."""
    data = problem(2, 2)
    soft_labels = labels(data, 3)
    one, other = fit_heads(
        data,
        [job(data, soft_labels=soft_labels), job(data, soft_labels=soft_labels[:, ::-1].copy())],
    )
    np.testing.assert_allclose(one.test_logits[:, 1], -other.test_logits[:, 1], rtol=1e-4)


def test_progress_counts_the_steps_of_all_heads_and_ends_at_the_end():
    data = problem(2, 2)
    jobs = [job(data), job(data, epochs=3), job(data, seed=1, batch_size=90)]
    seen = []
    fit_heads(data, jobs, progress=seen.append)
    assert seen[-1]["step"] == seen[-1]["steps"] == 6 + 18 + 1
    assert all(0 < numbers["step"] <= numbers["steps"] for numbers in seen)
    assert np.isfinite(seen[-1]["loss"])


def test_the_rates_of_a_curve_are_the_schedule():
    data = problem(2, 2)
    (fitted,) = fit_heads(data, [job(data, learning_rate=0.3)])
    assert fitted.curve.learning_rate == [learning_rate_at(s, 6, 0.3, "cosine") for s in range(6)]


@settings(max_examples=40)
@given(
    priors=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
    sizes=st.lists(st.sampled_from([1, 7, 100, 300]), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
def test_thresholds_of_many_heads_are_each_heads_buffer(priors, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    data = problem(1, 2, rows=4)
    jobs = [
        job(data, confidence=0.5, soft_labels=np.tile(np.float32([1 - p, p]), (4, 1)))
        for p in priors
    ]
    thresholds = Thresholds(jobs, Inputs(data.row_ids, torch.zeros(4, 1), 2, 2))
    buffers = [ThresholdBuffer(float(one.soft_labels[:, 1].mean())) for one in jobs]
    for size in sizes:
        logits = torch.randn(len(jobs), size, 2, generator=generator)
        thresholds.update(logits, torch.arange(len(jobs)))
        for buffer, one in zip(buffers, logits, strict=True):
            buffer.update(one[:, 1] - one[:, 0])
        theirs = [buffer.threshold for buffer in buffers]
        np.testing.assert_allclose(thresholds.values.numpy(), theirs, rtol=1e-6, atol=1e-6)
