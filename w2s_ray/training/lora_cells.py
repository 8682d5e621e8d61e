"""The cells of a stacked LoRA model, and ``loop.train`` for all of them at once.

The gradient of the sum of the cells' losses by one cell's weights is that of the cell's own loss.
Each cell keeps its own schedule, gradient norm, clipping and moments: a row of the stacked weights
is one parameter of a plain ``torch.optim.Adam``, in a group with its own learning rate. A cell
whose loss or gradient is not finite is set to zero and left out of the loss; the others train on.

This loop is a fused version of ``loop.train``; the test named in ``batched_lora`` proves it equal.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from w2s_ray.models.stacked_lora import StackedScorer
from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, ThresholdBuffer, log_odds
from w2s_ray.training.engine import Batch
from w2s_ray.training.job import TrainJob, threshold_buffer
from w2s_ray.training.loop import Curve, Evaluates, learning_rate_at
from w2s_ray.training.progress import Progress


@dataclass
class Cell:
    """The state of one job in a group.

    Attributes:
        weights: (P,) its row of the stacked weights; ``grad`` is a view of the stacked gradient.
        error: why the cell is no longer trained.
        loss: of the current step.
        predictions: of the current step's micro-batches, for the buffer.
        initial: (P,) weights before the first step, if the job has an anchor.
    """

    job: TrainJob
    weights: nn.Parameter
    curve: Curve = field(default_factory=Curve)
    buffer: ThresholdBuffer | None = None
    error: Exception | None = None
    loss: float = 0.0
    predictions: list[Tensor] = field(default_factory=list)
    initial: Tensor | None = None

    def __post_init__(self) -> None:
        self.buffer = threshold_buffer(self.job)
        self.initial = self.weights.detach().clone() if self.job.adam.anchor else None

    def begin_step(self) -> None:
        """Clears what belongs to the step before."""
        self.loss = 0.0
        self.predictions.clear()

    def loss_of(self, logits: Tensor, soft_labels: Tensor, weights: Tensor, alpha: float) -> Tensor:
        """Σ weight · loss of a micro-batch, with its graph."""
        threshold = self.buffer.threshold if self.buffer else PREFERENCE_THRESHOLD
        losses = self.job.objective(logits, soft_labels, alpha=alpha, threshold=threshold)
        weighted = (losses * weights).sum()
        self.loss += weighted.item()
        if self.buffer:
            self.predictions.append(log_odds(logits).cpu())
        return weighted


def cells_of(stack: StackedScorer, jobs: Sequence[TrainJob]) -> list[Cell]:
    """A cell for each job, on its row of the stacked weights."""
    cells = []
    for job, row, gradient in zip(jobs, stack.weights, stack.gradient, strict=True):
        weights = nn.Parameter(row)
        weights.grad = gradient
        cells.append(Cell(job, weights))
    return cells


def train_cells(
    stack: StackedScorer,
    cells: Sequence[Cell],
    stream: Iterable[list[Batch]],
    progress: Progress,
    evaluations: Evaluates | None = None,
) -> None:
    """``loop.train`` for all cells; the results are stored in the cells."""
    groups = [{"params": [cell.weights], **cell.job.adam.arguments()} for cell in cells]
    optimizer = torch.optim.Adam(groups, lr=0.0, fused=True)
    total_steps = cells[0].job.total_steps
    started, tokens = time.monotonic(), 0
    for step, batches in enumerate(stream):
        stack.gradient.zero_()
        alphas = [cell.job.objective.alpha(step, total_steps) for cell in cells]
        for cell in cells:
            cell.begin_step()
        for batch in batches:
            losses = _losses(stack, cells, batch, alphas)
            if losses:
                stack.backward(torch.stack(losses).sum())
            tokens += batch.tokens
        for cell, alpha, group in zip(cells, alphas, optimizer.param_groups, strict=True):
            if cell.error is None:
                group["lr"] = _finish_gradient(cell, step, alpha)
        optimizer.step()
        alive = [cell for cell in cells if cell.error is None]
        seconds = time.monotonic() - started
        for cell in alive:
            cell.curve.tokens = tokens
            cell.curve.seconds = seconds / len(cells)
            if cell.buffer:
                cell.buffer.update(torch.cat(cell.predictions))
        if not alive:
            return
        if evaluations is not None and evaluations.due(step + 1):
            began = time.monotonic()
            evaluations.evaluate(step + 1)
            started += time.monotonic() - began
        progress(
            {
                "step": step + 1,
                "steps": total_steps,
                "loss": sum(cell.loss for cell in alive) / len(alive),
                "tokens_per_second": len(alive) * tokens / max(seconds, 1e-9),
            }
        )


def _losses(
    stack: StackedScorer, cells: Sequence[Cell], batch: Batch, alphas: Sequence[float]
) -> list[Tensor]:
    """The losses of the cells still in training on one micro-batch, with their graphs."""
    device = stack.weights.device
    logits = stack.logits(**{name: tensor.to(device) for name, tensor in batch.inputs.items()})
    labels = batch.soft_labels.to(device).view(len(batch.weights), len(cells), -1)
    weights = batch.weights.to(device)
    losses = []
    for index, cell in enumerate(cells):
        if cell.error is None:
            try:
                loss = cell.loss_of(logits[index], labels[:, index], weights, alphas[index])
            except ValueError as error:  # the graph needs the cell's weights, so they stay
                cell.error, cell.weights.grad = error, None
            else:
                losses.append(loss)
    return losses


@torch.no_grad()
def _finish_gradient(cell: Cell, step: int, alpha: float) -> float:
    """Clips one cell's gradient and adds the step to its curve; returns the learning rate."""
    assert cell.weights.grad is not None
    job = cell.job
    rate = learning_rate_at(step, job.total_steps, job.learning_rate, job.schedule)
    if cell.initial is not None:
        cell.weights.grad.add_(cell.weights - cell.initial, alpha=job.adam.anchor)
    norm = torch.linalg.vector_norm(cell.weights.grad)
    if not math.isfinite(cell.loss):
        _drop(cell, FloatingPointError(f"loss is {cell.loss} at step {step}"))
    elif not math.isfinite(norm):
        _drop(cell, FloatingPointError(f"the gradient's norm is {float(norm)} at step {step}"))
    else:
        if job.adam.clip_norm is not None:
            nn.utils.clip_grads_with_norm_([cell.weights], job.adam.clip_norm, norm)
        cell.curve.loss.append(cell.loss)
        cell.curve.learning_rate.append(rate)
        cell.curve.gradient_norm.append(float(norm))
        cell.curve.alpha.append(alpha)
    return rate


@torch.no_grad()
def _drop(cell: Cell, error: FloatingPointError) -> None:
    """Ends the training of a cell. Its weights are still read, so they must stay finite."""
    cell.error = error
    cell.weights.zero_()
    cell.weights.grad = None
