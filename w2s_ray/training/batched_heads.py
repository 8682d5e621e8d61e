"""Heads trained as one batched problem: many cells on the same features, fused.

This is a fused version of ``loop.train``. ``tests/training/test_batched_heads.py`` proves it equal:
``test_each_of_a_mixed_group_is_what_the_loop_makes_of_it_alone`` compares every head with the loop
to 1e-6, and ``test_fusing_changes_no_bit`` a head in a group with the same head alone, bit for bit.

Heads that differ in loss, confidence, labels, seed and learning rate share all that is large: the
rows of a batch are gathered once for each seed, the logits of all heads are one matrix product, and
one Adam updates every weight. Which heads are fused is execution, so it must not change a number:

* Products are made ``BLOCK`` heads at a time, padded with zeros. So the shape of a product, and
  with it the order in which the library sums, does not depend on the number of heads.
* Each objective sees a multiple of ``LANES`` heads (``batched_objectives``), and weights are padded
  to a multiple of ``LANES`` columns.
* Weights are stored in units of their head's peak learning rate, so one rate serves all heads. In
  these units AdamW's decay is the factor 1 - rate · peak · decay of each head, and the gradient of
  an anchor (heads start at zero) is λ · peak · weights.

A head whose loss or gradient is not finite is set to zero and stays there; the others train on.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from w2s_ray.data.batches import epoch_order
from w2s_ray.training.batched_objectives import (
    LANES,
    Alphas,
    Slots,
    Thresholds,
    as_logits,
    as_scores,
    losses_and_slopes,
)
from w2s_ray.training.head_job import HeadJob, Inputs, TrainedHead, steps_of
from w2s_ray.training.loop import Curve, learning_rate_at
from w2s_ray.training.validation import evaluated_steps

BLOCK = 32
CHUNK_BYTES = 256 * 2**20
"""Memory of the heads that are trained at one time; more heads are trained in turns."""

OnSteps = Callable[[int, Tensor], None]
Pace = tuple[int, int, str, tuple[float, ...], int]


def train_batched(
    inputs: Inputs,
    jobs: Sequence[HeadJob],
    on_steps: OnSteps = lambda steps, losses: None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[TrainedHead | FloatingPointError]:
    """Trains any mixture of jobs by batches; one entry per job, in order.

    Args:
        on_steps: called after each step with the optimizer steps made, over all heads, since the
            last call, and the (J,) losses of the heads that made them.
        chunk_bytes: see ``CHUNK_BYTES``.

    Returns:
        Each head's weights and curve, or the error that ``loop.train`` would raise where a loss or
        gradient is not finite. ``Curve.seconds`` is the head's even share of its chunk's time.
    """
    width = inputs.rows.shape[1]
    padded = torch.nn.functional.pad(inputs.rows, (0, -width % LANES))
    inputs = replace(inputs, rows=padded.contiguous())
    results: list[TrainedHead | FloatingPointError] = [FloatingPointError()] * len(jobs)
    for chunk in _chunks(inputs, jobs, chunk_bytes):
        trained = _train(inputs, [jobs[index] for index in chunk], on_steps)
        for index, result in zip(chunk, trained, strict=True):
            if isinstance(result, TrainedHead):
                result = replace(
                    result,
                    weights=result.weights[:, :width],
                    snapshots=[snapshot[:, :width] for snapshot in result.snapshots],
                )
            results[index] = result
    return results


def _pace(job: HeadJob) -> Pace:
    """What must be equal for heads to take their steps together."""
    adam = (*job.adam.betas, job.adam.epsilon, job.adam.clip_norm or 0.0)
    return job.epochs, job.batch_size, job.schedule, adam, job.evaluations


def _chunks(inputs: Inputs, jobs: Sequence[HeadJob], limit: int) -> Iterator[list[int]]:
    """Indices of jobs that are trained at one time: of one pace, sorted by seed.

    Args:
        limit: bytes that the heads of a chunk may take.
    """
    by_pace = sorted(range(len(jobs)), key=lambda index: (_pace(jobs[index]), jobs[index].seed))
    for _, members in groupby(by_pace, key=lambda index: _pace(jobs[index])):
        alike = list(members)
        rows, width = inputs.rows.shape
        steps = steps_of(jobs[alike[0]], inputs)
        copies = 4 + jobs[alike[0]].evaluations - 1  # weights, gradient, moments, snapshots
        floats = copies * inputs.outputs * width + rows * inputs.num_classes + 2 * steps
        size = max(1, limit // (4 * floats))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _train(
    inputs: Inputs, jobs: Sequence[HeadJob], on_steps: OnSteps
) -> list[TrainedHead | FloatingPointError]:
    """Trains one chunk: ``loop.train`` for J heads in S slots, b rows a batch, P padded columns."""
    started = time.monotonic()
    pace, outputs = jobs[0], inputs.outputs
    total_steps = steps_of(pace, inputs)
    weights = torch.zeros(len(jobs), outputs * inputs.rows.shape[1])
    weights.grad = gradient = torch.zeros_like(weights)
    peaks = torch.tensor([job.learning_rate for job in jobs])[:, None]
    decays = torch.tensor([job.adam.weight_decay for job in jobs])[:, None] * peaks
    pulls = torch.tensor([job.adam.anchor for job in jobs])[:, None] * peaks
    decayed, pulled = bool(decays.any()), bool(pulls.any())
    adam = torch.optim.Adam(
        [weights], lr=0.0, betas=pace.adam.betas, eps=pace.adam.epsilon, fused=True
    )
    slots, thresholds, alphas = Slots(jobs), Thresholds(jobs, inputs), Alphas(jobs, total_steps)
    losses, norms = torch.zeros(2, total_steps, len(jobs)).unbind()
    failed: dict[int, FloatingPointError] = {}
    evaluated = evaluated_steps(total_steps, pace.evaluations)
    snapshots: list[Tensor] = []  # (J, outputs, P) each
    for step, (batches, soft_labels, row_weights) in enumerate(_batches(inputs, jobs)):
        scores = torch.empty(len(jobs), outputs * soft_labels.shape[1])
        for heads, x in batches:
            _multiply(weights[heads], x.T, scores[heads], outputs)
        logits = as_logits((scores * peaks).index_select(0, slots.head), outputs)
        values, slopes = losses_and_slopes(
            slots,
            logits,
            soft_labels.index_select(0, slots.head),
            alphas.at(step).index_select(0, slots.head),
            thresholds.values.index_select(0, slots.head),
            None if row_weights is None else row_weights.index_select(0, slots.head),
        )
        torch.index_select(values, 0, slots.slot, out=losses[step])
        back = as_scores(slopes.index_select(0, slots.slot), outputs)
        for heads, x in batches:
            _multiply(back[heads], x, gradient[heads], outputs)
        if pulled:
            gradient.addcmul_(weights, pulls)
        torch.linalg.vector_norm(gradient, dim=1, out=norms[step])
        finite = losses[step].isfinite() & norms[step].isfinite()
        if failed or not bool(finite.all()):
            failed = {**_failures(losses[step], norms[step], finite, step), **failed}
            _zero(failed, weights, adam)
            if len(failed) == len(jobs):
                break
        if pace.adam.clip_norm is not None:
            gradient *= (
                (pace.adam.clip_norm / (norms[step] + 1e-6)).clamp(max=1.0).nan_to_num()[:, None]
            )
        rate = learning_rate_at(step, total_steps, 1.0, pace.schedule)
        if decayed:
            weights.mul_(1.0 - rate * decays)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        thresholds.update(logits, slots.slot)
        if step + 1 in evaluated[:-1]:
            snapshots.append((weights * peaks).view(len(jobs), outputs, -1))
        on_steps(len(jobs), losses[step])
    weights = (weights * peaks).view(len(jobs), outputs, -1)
    curves = _curves(jobs, losses, norms, alphas, (time.monotonic() - started) / len(jobs))
    return [
        failed.get(index)
        or TrainedHead(
            weights[index],
            curve,
            evaluated=evaluated,
            snapshots=[snapshot[index] for snapshot in snapshots],
        )
        for index, curve in enumerate(curves)
    ]


def _curves(
    jobs: Sequence[HeadJob], losses: Tensor, norms: Tensor, alphas: Alphas, seconds: float
) -> Iterator[Curve]:
    """The curve of each head.

    Args:
        losses, norms: (steps, J).
        seconds: one head's share of the time.
    """
    total_steps, schedule = len(losses), jobs[0].schedule
    rates = {
        peak: [learning_rate_at(s, total_steps, peak, schedule) for s in range(total_steps)]
        for peak in {job.learning_rate for job in jobs}
    }
    columns = zip(losses.T.tolist(), norms.T.tolist(), strict=True)
    for index, (job, (loss, norm)) in enumerate(zip(jobs, columns, strict=True)):
        yield Curve(loss, rates[job.learning_rate], norm, alphas.of(index), seconds=seconds)


def _batches(
    inputs: Inputs, jobs: Sequence[HeadJob]
) -> Iterator[tuple[list[tuple[slice, Tensor]], Tensor, Tensor | None]]:
    """Yields for each step every seed's heads with their rows (b, P), soft labels (J, b, K), and
    the weights (J, b) of the rows; None if no head has any."""
    spans: list[tuple[int, slice]] = []
    for seed, members in groupby(range(len(jobs)), key=lambda index: jobs[index].seed):
        heads = list(members)
        spans.append((seed, slice(heads[0], heads[-1] + 1)))
    visited = np.empty((len(jobs), *jobs[0].soft_labels.shape), dtype=np.float32)
    soft_labels = torch.from_numpy(visited)
    weighted = any(job.weights is not None for job in jobs)
    weights = torch.ones(visited.shape[:2]) if weighted else None
    for epoch in range(jobs[0].epochs):
        orders = {seed: epoch_order(inputs.row_ids, seed, epoch) for seed, _ in spans}
        for job, target in zip(jobs, visited, strict=True):
            np.take(job.soft_labels, orders[job.seed], axis=0, out=target)
        for index, job in enumerate(jobs):
            if job.weights is not None and weights is not None:
                weights[index] = torch.from_numpy(job.weights[orders[job.seed]])
        for start in range(0, len(inputs.row_ids), jobs[0].batch_size):
            rows = slice(start, start + jobs[0].batch_size)
            yield (
                [(heads, inputs.rows[orders[seed][rows]]) for seed, heads in spans],
                soft_labels[:, rows].contiguous(),
                None if weights is None else weights[:, rows].contiguous(),
            )


def _multiply(left: Tensor, right: Tensor, out: Tensor, outputs: int) -> None:
    """Writes left @ right into ``out``, a block of heads at a time.

    Args:
        left: (J, outputs * inner).
        right: (inner, columns).
        out: (J, outputs * columns).
    """
    rows = BLOCK * outputs
    blocks = torch.split(left.view(-1, right.shape[0]), rows)
    targets = torch.split(out.view(-1, right.shape[1]), rows)
    for block, target in zip(blocks, targets, strict=True):
        if block.shape[0] == rows:
            torch.mm(block, right, out=target)
        else:
            padded = block.new_zeros(rows, block.shape[1])
            padded[: block.shape[0]] = block
            target.copy_(torch.mm(padded, right)[: block.shape[0]])


def _failures(
    losses: Tensor, norms: Tensor, finite: Tensor, step: int
) -> dict[int, FloatingPointError]:
    """The error that ``loop.train`` would raise at this step, by head."""
    errors = {}
    for index in (~finite).nonzero().ravel().tolist():
        loss, norm = float(losses[index]), float(norms[index])
        text = f"loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        errors[index] = FloatingPointError(f"{text} at step {step}")
    return errors


def _zero(failed: Mapping[int, object], weights: Tensor, adam: torch.optim.Adam) -> None:
    """Sets weights, gradients and moments of the failed heads to zero."""
    state = adam.state[weights]
    moments = [state[name] for name in ("exp_avg", "exp_avg_sq") if name in state]
    assert weights.grad is not None
    for tensor in (weights, weights.grad, *moments):
        tensor[list(failed)] = 0.0
