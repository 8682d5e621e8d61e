"""Heads trained together: many cells on the same features as one batched problem.

Heads that differ in loss, confidence, labels, seed and learning rate share all that is large: a
seed's batch of rows is gathered once, the logits of all its heads are one matrix product, and one
Adam updates every weight. Which heads share a run is execution, so it may not change a number:

* Products are made ``BLOCK`` heads at a time, with zeros where heads run out. A product's shape,
  and with it the order in which the library sums, is then the same alone and in company.
* Each objective sees a multiple of ``LANES`` heads, and weights are padded to as many columns:
  vectorised code never ends in a scalar remainder, which could round in another way.
* Weights are kept in units of their head's peak rate, so the rates of one step are one number.

A head whose loss or gradient is not finite is set to zero and stays there; the others go on.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.data.batches import epoch_order
from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, ThresholdBuffer, log_odds
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam
from w2s_ray.training.loop import Curve, learning_rate_at

BLOCK = 32
LANES = 32
CHUNK_BYTES = 256 * 2**20
"""Memory of the heads that are in training at one time; more than that take turns."""


@dataclass(frozen=True)
class HeadJob:
    """What one head has of its own.

    Attributes:
        soft_labels: (n, K) float32, in the order of the shared rows.
        solver: sgd (batches, Adam), or newton or lbfgs (all rows at once, to the minimum), for
            which epochs, batch size, rate, schedule and Adam's settings mean nothing.
    """

    soft_labels: NDArray[np.float32]
    objective: Objective
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    adam: Adam
    solver: str = "sgd"


@dataclass(frozen=True)
class Inputs:
    """What the heads read: standardised, a constant 1 for the bias, of a pair the difference.

    Attributes:
        row_ids: n of them, from which the order of an epoch is drawn.
        rows: (n, P) float32.
        num_classes: K.
        outputs: of a head: 1 for pairs, whose logits are (0, z), else K.
    """

    row_ids: list[str]
    rows: Tensor
    num_classes: int
    outputs: int


@dataclass(frozen=True)
class Trained:
    """A head's weights on the shared inputs, (outputs, P) float32, and how it came to them."""

    weights: Tensor
    curve: Curve
    facts: Mapping[str, Any] = field(default_factory=dict)


OnSteps = Callable[[int, Tensor], None]


def steps_of(job: HeadJob, inputs: Inputs) -> int:
    """Optimizer steps of one head."""
    return job.epochs * math.ceil(len(inputs.row_ids) / job.batch_size)


def train_together(
    inputs: Inputs,
    jobs: Sequence[HeadJob],
    on_steps: OnSteps = lambda steps, losses: None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[Trained | FloatingPointError]:
    """Trains every job by batches, in the order given, whatever they differ in.

    Args:
        on_steps: takes how many optimizer steps, over all heads, were made since it was called
            last, and (J,) the losses of the heads that made them.
        chunk_bytes: see ``CHUNK_BYTES``.

    Returns:
        Each head's weights and curve; or, where a loss or gradient was
        not finite, the error that ``loop.train`` raises. ``Curve.seconds`` is the head's even
        share of the time that its company took.
    """
    width = inputs.rows.shape[1]
    padded = torch.nn.functional.pad(inputs.rows, (0, -width % LANES))
    inputs = replace(inputs, rows=padded.contiguous())
    results: list[Trained | FloatingPointError] = [FloatingPointError()] * len(jobs)
    for chunk in _chunks(inputs, jobs, chunk_bytes):
        trained = _train(inputs, [jobs[index] for index in chunk], on_steps)
        for index, result in zip(chunk, trained, strict=True):
            if isinstance(result, Trained):
                result = replace(result, weights=result.weights[:, :width])
            results[index] = result
    return results


def _chunks(inputs: Inputs, jobs: Sequence[HeadJob], limit: int) -> Iterator[list[int]]:
    """Indices of jobs that can take their steps together, one seed after the other."""

    def pace(index: int) -> tuple[Any, ...]:
        job = jobs[index]
        adam = (*job.adam.betas, job.adam.epsilon, job.adam.clip_norm or 0.0)
        return job.epochs, job.batch_size, job.schedule, adam

    by_pace = sorted(range(len(jobs)), key=lambda index: (pace(index), jobs[index].seed))
    for _, members in groupby(by_pace, key=pace):
        alike = list(members)
        rows, width = inputs.rows.shape
        steps = steps_of(jobs[alike[0]], inputs)
        floats = 4 * inputs.outputs * width + rows * inputs.num_classes + 2 * steps
        size = max(1, limit // (4 * floats))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


class Slots:
    """The heads in the order of their objectives, ``LANES`` at a time; spare places repeat one.

    Attributes:
        head: (S,) the head in each slot. slot: (J,) a slot of each head.
        spans: the objectives, each with its slots; what they take of α is told apart by head.
    """

    def __init__(self, jobs: Sequence[HeadJob]) -> None:
        kinds: dict[Objective, list[int]] = {}
        for index, job in enumerate(jobs):
            kind = replace(job.objective, confidence_weight=0.0, confidence_warmup=0.0)
            kinds.setdefault(kind, []).append(index)
        self.spans: list[tuple[Objective, slice]] = []
        heads: list[int] = []
        for kind, members in kinds.items():
            start = len(heads)
            heads += members + members[:1] * (-len(members) % LANES)
            self.spans.append((kind, slice(start, len(heads))))
        self.head = torch.tensor(heads)
        self.slot = torch.zeros(len(jobs), dtype=torch.int64)
        self.slot[self.head] = torch.arange(len(heads))


class Thresholds:
    """``ThresholdBuffer`` for all heads that need one, those of two-class texts under confidence
    regularisation, at once: it remembers and forgets as that class does, with the same quantile."""

    def __init__(self, jobs: Sequence[HeadJob], inputs: Inputs) -> None:
        self.values = torch.full((len(jobs),), PREFERENCE_THRESHOLD)
        self._heads = [
            index
            for index, job in enumerate(jobs)
            if inputs.outputs == 2 and job.objective.confidence_weight
        ]
        self._below = np.array([1.0 - float(jobs[i].soft_labels[:, 1].mean()) for i in self._heads])
        self._capacity = ThresholdBuffer(prior=0.5).capacity
        self._steps: list[NDArray[np.float32]] = []

    def update(self, logits: Tensor, slot: Tensor) -> None:
        """Thresholds of the coming step from (S, b, 2) logits of this one."""
        if not self._heads:
            return
        self._steps.append(log_odds(logits.index_select(0, slot[self._heads])).numpy())
        while sum(step.shape[1] for step in self._steps[1:]) >= self._capacity:
            self._steps.pop(0)
        latest = np.sort(np.concatenate(self._steps, axis=1), axis=1)
        # Hazen's quantile, of another share in each row.
        last = latest.shape[1] - 1
        place = np.clip(self._below * latest.shape[1] - 0.5, 0.0, last)
        lower = place.astype(np.int64)
        heads = np.arange(len(latest))
        low, high = latest[heads, lower], latest[heads, np.minimum(lower + 1, last)]
        values = low + (high.astype(np.float64) - low) * (place - lower)
        self.values[self._heads] = torch.from_numpy(values).float()


class Alphas:
    """Every head's α by step; heads that share weight and warm-up share one list."""

    def __init__(self, jobs: Sequence[HeadJob], total_steps: int) -> None:
        ramps: dict[tuple[float, float], int] = {}
        self._lists: list[list[float]] = []
        kinds = []
        for job in jobs:
            ramp = (job.objective.confidence_weight, job.objective.confidence_warmup)
            if ramp not in ramps:
                ramps[ramp] = len(ramps)
                self._lists.append(
                    [job.objective.alpha(s, total_steps) for s in range(total_steps)]
                )
            kinds.append(ramps[ramp])
        self._kinds = torch.tensor(kinds)
        self._table = torch.tensor(self._lists, dtype=torch.float64).T.float()

    def at(self, step: int) -> Tensor:
        """(J,) float32."""
        return self._table[step].index_select(0, self._kinds)

    def of(self, index: int) -> list[float]:
        return self._lists[int(self._kinds[index])]


def _train(
    inputs: Inputs, jobs: Sequence[HeadJob], on_steps: OnSteps
) -> list[Trained | FloatingPointError]:
    """One chunk: jobs of one pace, sorted by seed. J heads, S slots, b rows, P padded columns."""
    started = time.monotonic()
    pace, outputs = jobs[0], inputs.outputs
    total_steps = steps_of(pace, inputs)
    weights = torch.zeros(len(jobs), outputs * inputs.rows.shape[1])
    weights.grad = gradient = torch.zeros_like(weights)
    peaks = torch.tensor([job.learning_rate for job in jobs])[:, None]
    adam = torch.optim.Adam(
        [weights], lr=0.0, betas=pace.adam.betas, eps=pace.adam.epsilon, fused=True
    )
    slots, thresholds, alphas = Slots(jobs), Thresholds(jobs, inputs), Alphas(jobs, total_steps)
    losses, norms = torch.zeros(2, total_steps, len(jobs)).unbind()
    failed: dict[int, FloatingPointError] = {}
    for step, (batches, soft_labels) in enumerate(_batches(inputs, jobs)):
        scores = torch.empty(len(jobs), outputs * soft_labels.shape[1])
        for heads, x in batches:
            _multiply(weights[heads], x.T, scores[heads], outputs)
        logits = _as_logits((scores * peaks).index_select(0, slots.head), outputs)
        values, slopes = _slopes(
            slots,
            logits,
            soft_labels.index_select(0, slots.head),
            alphas.at(step).index_select(0, slots.head),
            thresholds.values.index_select(0, slots.head),
        )
        torch.index_select(values, 0, slots.slot, out=losses[step])
        back = _as_scores(slopes.index_select(0, slots.slot), outputs)
        for heads, x in batches:
            _multiply(back[heads], x, gradient[heads], outputs)
        torch.linalg.vector_norm(gradient, dim=1, out=norms[step])
        finite = losses[step].isfinite() & norms[step].isfinite()
        if failed or not bool(finite.all()):
            failed = {**_failures(losses[step], norms[step], finite, step), **failed}
            state = adam.state[weights]
            moments = [state[name] for name in ("exp_avg", "exp_avg_sq") if name in state]
            for tensor in (weights, gradient, *moments):
                tensor[list(failed)] = 0.0
            if len(failed) == len(jobs):
                break
        if pace.adam.clip_norm is not None:
            gradient *= (
                (pace.adam.clip_norm / (norms[step] + 1e-6)).clamp(max=1.0).nan_to_num()[:, None]
            )
        adam.param_groups[0]["lr"] = learning_rate_at(step, total_steps, 1.0, pace.schedule)
        adam.step()
        thresholds.update(logits, slots.slot)
        on_steps(len(jobs), losses[step])
    weights = (weights * peaks).view(len(jobs), outputs, -1)
    seconds = (time.monotonic() - started) / len(jobs)
    rates = {
        peak: [learning_rate_at(s, total_steps, peak, pace.schedule) for s in range(total_steps)]
        for peak in {job.learning_rate for job in jobs}
    }
    curves = zip(losses.T.tolist(), norms.T.tolist(), strict=True)
    return [
        failed.get(index)
        or Trained(
            weights[index],
            Curve(loss, rates[job.learning_rate], norm, alphas.of(index), seconds=seconds),
        )
        for index, (job, (loss, norm)) in enumerate(zip(jobs, curves, strict=True))
    ]


def _batches(
    inputs: Inputs, jobs: Sequence[HeadJob]
) -> Iterator[tuple[list[tuple[slice, Tensor]], Tensor]]:
    """Of each step: every seed's heads with the rows (b, P) that they read, and (J, b, K)."""
    spans: list[tuple[int, slice]] = []
    for seed, members in groupby(range(len(jobs)), key=lambda index: jobs[index].seed):
        heads = list(members)
        spans.append((seed, slice(heads[0], heads[-1] + 1)))
    visited = np.empty((len(jobs), *jobs[0].soft_labels.shape), dtype=np.float32)
    soft_labels = torch.from_numpy(visited)
    for epoch in range(jobs[0].epochs):
        orders = {seed: epoch_order(inputs.row_ids, seed, epoch) for seed, _ in spans}
        for job, target in zip(jobs, visited, strict=True):
            np.take(job.soft_labels, orders[job.seed], axis=0, out=target)
        for start in range(0, len(inputs.row_ids), jobs[0].batch_size):
            rows = slice(start, start + jobs[0].batch_size)
            yield (
                [(heads, inputs.rows[orders[seed][rows]]) for seed, heads in spans],
                soft_labels[:, rows].contiguous(),
            )


def _multiply(left: Tensor, right: Tensor, out: Tensor, outputs: int) -> None:
    """out = left @ right of (J, outputs * inner) and (inner, columns), a block at a time."""
    rows = BLOCK * outputs
    blocks = torch.split(left.view(-1, right.shape[0]), rows)
    targets = torch.split(out.view(-1, right.shape[1]), rows)
    for block, target in zip(blocks, targets, strict=True):
        if block.shape[0] == rows:
            torch.mm(block, right, out=target)
        else:
            filled = block.new_zeros(rows, block.shape[1])
            filled[: block.shape[0]] = block
            target.copy_(torch.mm(filled, right)[: block.shape[0]])


def _as_logits(scores: Tensor, outputs: int) -> Tensor:
    """(S, outputs * b) → (S, b, K); for pairs (0, z)."""
    if outputs == 1:
        return torch.stack([torch.zeros_like(scores), scores], dim=2)
    return scores.view(len(scores), outputs, -1).transpose(1, 2).contiguous()


def _as_scores(slopes: Tensor, outputs: int) -> Tensor:
    """The reverse way for gradients: (J, b, K) → (J, outputs * b)."""
    if outputs == 1:
        return slopes[:, :, 1].contiguous()
    return slopes.transpose(1, 2).flatten(1)


def _slopes(
    slots: Slots, logits: Tensor, soft_labels: Tensor, alphas: Tensor, thresholds: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean loss (S,) of each slot's batch and its gradient (S, b, K) with respect to the logits."""
    size = logits.shape[1]
    leaves, losses = [], []
    for objective, span in slots.spans:
        leaf = logits[span].flatten(0, 1).requires_grad_()
        loss = objective(
            leaf,
            soft_labels[span].flatten(0, 1),
            alpha=alphas[span].repeat_interleave(size),
            threshold=thresholds[span].repeat_interleave(size),
        )
        leaves.append(leaf)
        losses.append(loss)
    shares = [torch.full_like(loss, 1.0 / size) for loss in losses]
    slopes = torch.autograd.grad(losses, leaves, shares)
    values = torch.cat([loss.detach() * share for loss, share in zip(losses, shares, strict=True)])
    return values.view(-1, size).sum(dim=1), torch.cat(slopes).view_as(logits)


def _failures(
    losses: Tensor, norms: Tensor, finite: Tensor, step: int
) -> dict[int, FloatingPointError]:
    """What ``loop.train`` would raise at this step, by head."""
    errors = {}
    for index in (~finite).nonzero().ravel().tolist():
        loss, norm = float(losses[index]), float(norms[index])
        text = f"loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        errors[index] = FloatingPointError(f"{text} at step {step}")
    return errors
