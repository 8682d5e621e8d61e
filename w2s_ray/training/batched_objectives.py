"""The objectives of many heads evaluated at once: losses, gradients, α and thresholds by head.

Letters: J heads, S slots, b rows of a batch, K classes.

An objective is one vectorised function, so heads that share it are evaluated in one call. Each call
gets a multiple of ``LANES`` heads (spare slots repeat one): vectorised code then never ends in a
scalar remainder, which could round differently, and a head's numbers do not depend on how many
others there are.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, ThresholdBuffer, log_odds
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.head_job import HeadJob, Inputs

LANES = 32


class Slots:
    """The heads sorted by objective, each objective padded to a multiple of ``LANES`` slots.

    Attributes:
        head: (S,) the head in each slot.
        slot: (J,) a slot of each head.
        spans: each objective with its slots. α is passed by head, so objectives that differ only
            in how α rises are one.
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
    """A ``ThresholdBuffer`` for every head that needs one, updated in one call.

    Heads of two-class texts under confidence regularisation need one. Values are remembered and
    dropped as in that class, and the quantile is the same.

    Attributes:
        values: (J,) float32 thresholds of the coming step.
    """

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
        """Sets the thresholds of the coming step from the (S, b, 2) logits of this step."""
        if not self._heads:
            return
        self._steps.append(log_odds(logits.index_select(0, slot[self._heads])).numpy())
        while sum(step.shape[1] for step in self._steps[1:]) >= self._capacity:
            self._steps.pop(0)
        latest = np.sort(np.concatenate(self._steps, axis=1), axis=1)
        # Hazen's quantile, with another share for each head.
        last = latest.shape[1] - 1
        position = np.clip(self._below * latest.shape[1] - 0.5, 0.0, last)
        lower = position.astype(np.int64)
        heads = np.arange(len(latest))
        low, high = latest[heads, lower], latest[heads, np.minimum(lower + 1, last)]
        values = low + (high.astype(np.float64) - low) * (position - lower)
        self.values[self._heads] = torch.from_numpy(values).float()


class Alphas:
    """Every head's α by step; heads with the same weight and warm-up share one list."""

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
        """(J,) float32 α of every head at one step."""
        return self._table[step].index_select(0, self._kinds)

    def of(self, index: int) -> list[float]:
        """α of one head at every step."""
        return self._lists[int(self._kinds[index])]


def as_logits(scores: Tensor, outputs: int) -> Tensor:
    """Logits (S, b, K) from scores (S, outputs * b); for pairs (0, z)."""
    if outputs == 1:
        return torch.stack([torch.zeros_like(scores), scores], dim=2)
    return scores.view(len(scores), outputs, -1).transpose(1, 2).contiguous()


def as_scores(slopes: Tensor, outputs: int) -> Tensor:
    """Gradients (J, outputs * b) by scores from gradients (J, b, K) by logits."""
    if outputs == 1:
        return slopes[:, :, 1].contiguous()
    return slopes.transpose(1, 2).flatten(1)


def losses_and_slopes(
    slots: Slots,
    logits: Tensor,
    soft_labels: Tensor,
    alphas: Tensor,
    thresholds: Tensor,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean loss (S,) of each slot's batch, and its gradient (S, b, K) by the logits.

    Args:
        logits, soft_labels: (S, b, K).
        alphas, thresholds: (S,).
        weights: (S, b) of the rows; None: all 1.
    """
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
    if weights is not None:
        shares = [
            share * weights[span].flatten()
            for share, (_, span) in zip(shares, slots.spans, strict=True)
        ]
    slopes = torch.autograd.grad(losses, leaves, shares)
    values = torch.cat([loss.detach() * share for loss, share in zip(losses, shares, strict=True)])
    return values.view(-1, size).sum(dim=1), torch.cat(slopes).view_as(logits)
