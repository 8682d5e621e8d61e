"""LoRA cells trained together: their adapters in one pass over the backbone that they share.

Cells that differ in soft labels, objective, learning rate, schedule or Adam's settings read the
same batches through the same frozen weights. They are one stacked model (``models.stacked_lora``):
the gradient of the sum of their losses is, for each cell's weights, that of the cell's own loss.
Which cells share a run is execution; it changes no number beyond the rounding of float32 (products
of another shape sum in another order).

Each cell keeps its own schedule, norm, clipping and moments: a row of the stacked weights is one
parameter of a plain ``torch.optim.Adam``, with a group, hence a rate, of its own. A cell whose loss
or gradient is not finite is set to zero and left out of the loss; the others go on.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from w2s_ray.data.labels import as_column, as_matrix
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.compiled import compile_if_it_pays
from w2s_ray.models.inference import TOKEN_BUDGET, sweep
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.stacked_lora import StackedScorer
from w2s_ray.models.trainable import set_trainable
from w2s_ray.models.warm import own_backbone
from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, ThresholdBuffer, log_odds
from w2s_ray.training.engine import Batch
from w2s_ray.training.exports import export_trained
from w2s_ray.training.job import WEIGHTS, TrainJob, memory_stream, threshold_buffer
from w2s_ray.training.loop import Curve, Progress, learning_rate_at
from w2s_ray.training.outputs import training_metrics, write_curve, write_predictions
from w2s_ray.training.peak_memory import peak_memory

SHARED = (
    "model", "num_classes", "per_row", "trainable", "lora", "seed", "epochs", "batch_size",
    "max_length_tokens", "precision",
)  # fmt: skip
"""Fields of ``TrainJob`` that must be equal; so must its tables, but for ``probs`` of the rows."""


def fit_lora_together(
    jobs: Sequence[TrainJob],
    outs: Sequence[Path],
    *,
    progress: Progress = lambda numbers: None,
) -> list[dict[str, Any] | Exception]:
    """Trains every job as ``job.fit`` would alone, and writes the same files into its folder.

    A micro-batch holds, over all cells, the tokens that one cell alone may hold (or one row for
    each cell), so activations take what the budget allows, however many cells there are.

    Args:
        jobs: trainable "lora"; equal in ``SHARED``, in their test tables and in the ids and texts
            of their rows.
        outs: a folder a job.
        progress: takes the steps of the group, the mean loss of the cells that are still in
            training, and tokens per second over all cells.

    Returns:
        One entry a job, in order: the metrics that ``job.fit`` returns, and ``fused``, how many
        were trained together; times are the cell's even share. Or what it raised, with nothing
        written: FloatingPointError as by ``loop.train``, ValueError for an objective that does not
        allow so many classes.

    Raises:
        ValueError: the jobs do not share what they must, which is named.
    """
    if not jobs:
        return []
    _check(jobs)
    first, cells = jobs[0], len(jobs)
    with peak_memory() as peak:
        backbone = own_backbone(first.model, first.precision)
        scorer = Scorer(
            backbone.module, backbone.hidden_size, first.num_classes, first.per_row, seed=first.seed
        )
        set_trainable(scorer, "lora", first.lora, first.seed)
        if first.execution.get("activation_checkpointing"):
            backbone.module.activation_checkpointing_enable()
        named = dict(scorer.named_parameters())
        shapes = {name: tuple(p.shape) for name, p in named.items()}
        frozen = {name: p for name, p in named.items() if not p.requires_grad}
        stack = StackedScorer(scorer, cells)
        test = encode(first.test, backbone.tokenizer, first.max_length_tokens)
        tokens = encode(first.rows, backbone.tokenizer, first.max_length_tokens)
        work = cells * first.epochs * len(tokens.ids)
        compiled = compile_if_it_pays(backbone, work, flops_per_parameter=6)
        states = [_Cell(job, parameter) for job, parameter in zip(jobs, _rows(stack), strict=True)]
        _train(stack, states, memory_stream(_as_one(jobs), tokens), progress)
        logits = _score(stack, test, first.on_gpu)
        most = peak()
    shared = {
        "truncated_test_rows": test.truncated,
        "truncated_rows": tokens.truncated,
        "shares_prompts": backbone.shares_prompts,
        "compiled": compiled,
        "micro_batch_tokens": _budget(jobs),
        "out_of_memory": 0,  # a group is not tried again with shorter passes
        "workers": 1,
        "peak_memory_bytes": most,
        "device": stack.weights.device.type,
        "fused": cells,
    }
    results: list[dict[str, Any] | Exception] = []
    for index, (cell, out) in enumerate(zip(states, outs, strict=True)):
        if cell.error is not None:
            results.append(cell.error)
            continue
        write_predictions(out / "test.parquet", cell.job.test, logits[index])
        write_curve(out / "curve.parquet", cell.curve)
        if cell.job.keep_weights:
            save_file(stack.state(index), out / WEIGHTS)
        card = cell.job.card
        if card is not None:
            whole = partial(_whole, {**frozen, **stack.state(index)})
            export_trained(out, card, cell.job, backbone, shapes, whole, test, logits[index])
        results.append({**training_metrics(cell.curve), **shared})
    return results


@dataclass
class _Cell:
    """A job, its row of the stacked weights, and how far it came."""

    job: TrainJob
    weights: nn.Parameter  # (P,), its ``grad`` a view of the stacked gradient
    curve: Curve = field(default_factory=Curve)
    buffer: ThresholdBuffer | None = None
    error: Exception | None = None
    loss: float = 0.0  # of the step under way
    predictions: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffer = threshold_buffer(self.job.objective, self.job.rows, self.job.per_row)

    def begin(self) -> None:
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


def _rows(stack: StackedScorer) -> list[nn.Parameter]:
    rows = [nn.Parameter(row) for row in stack.weights]
    for row, gradient in zip(rows, stack.gradient, strict=True):
        row.grad = gradient
    return rows


def _train(
    stack: StackedScorer, cells: Sequence[_Cell], stream: Iterable[list[Batch]], progress: Progress
) -> None:
    """``loop.train`` for all cells; what becomes of each is left in it."""
    groups = [
        {"params": [cell.weights], "betas": cell.job.adam.betas, "eps": cell.job.adam.epsilon}
        for cell in cells
    ]
    optimizer = torch.optim.Adam(groups, lr=0.0, fused=True)
    device, total_steps = stack.weights.device, cells[0].job.total_steps
    started, tokens = time.monotonic(), 0
    for step, batches in enumerate(stream):
        stack.gradient.zero_()
        alphas = [cell.job.objective.alpha(step, total_steps) for cell in cells]
        for cell in cells:
            cell.begin()
        for batch in batches:
            placed = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
            logits = stack.logits(**placed)
            labels = batch.soft_labels.to(device).view(len(batch.weights), len(cells), -1)
            weights = batch.weights.to(device)
            losses = []
            for index, cell in enumerate(cells):
                if cell.error is None:
                    try:
                        found = cell.loss_of(
                            logits[index], labels[:, index], weights, alphas[index]
                        )
                    except ValueError as error:  # its weights are in this pass's graph: they stay
                        cell.error, cell.weights.grad = error, None
                    else:
                        losses.append(found)
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
        progress(
            {
                "step": step + 1,
                "steps": total_steps,
                "loss": sum(cell.loss for cell in alive) / len(alive),
                "tokens_per_second": len(alive) * tokens / max(seconds, 1e-9),
            }
        )


@torch.no_grad()
def _finish_gradient(cell: _Cell, step: int, alpha: float) -> float:
    """Clips one cell's gradient and writes the step into its curve; returns the step's rate."""
    assert cell.weights.grad is not None
    job = cell.job
    rate = learning_rate_at(step, job.total_steps, job.learning_rate, job.schedule)
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
def _drop(cell: _Cell, error: FloatingPointError) -> None:
    """Takes a cell out of training; it is still read, so it must stay finite."""
    cell.error = error
    cell.weights.zero_()
    cell.weights.grad = None


def _whole(parameters: Mapping[str, Tensor], names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        yield name, parameters[name].detach().cpu()


def _score(stack: StackedScorer, tokens: Tokens, on_gpu: bool) -> NDArray[np.float32]:
    """(C, n, K) float32 logits of all rows, in table order."""
    device = stack.weights.device

    def forward(input_ids: Tensor, segments: Tensor) -> Tensor:
        logits = stack.logits(input_ids.to(device), segments.to(device))
        return logits.transpose(0, 1).flatten(1)

    budget = max(1, TOKEN_BUDGET["cuda" if on_gpu else "cpu"] // stack.cells)
    flat = sweep(forward, tokens, budget)
    return np.ascontiguousarray(flat.reshape(len(flat), stack.cells, -1).swapaxes(0, 1))


def _as_one(jobs: Sequence[TrainJob]) -> TrainJob:
    """A job whose rows carry the soft labels of all, C · K a row, and whose micro-batches are as
    many times smaller as there are jobs."""
    first = jobs[0]
    labels = np.concatenate([as_matrix(job.rows["probs"]) for job in jobs], axis=1)
    place = first.rows.column_names.index("probs")
    return replace(
        first,
        rows=first.rows.set_column(place, "probs", as_column(labels)),
        execution={**first.execution, "micro_batch_tokens": _budget(jobs)},
    )


def _budget(jobs: Sequence[TrainJob]) -> int:
    """Most tokens of a pass, each of which every cell reads."""
    return max(1, jobs[0].token_budget // len(jobs))


def _check(jobs: Sequence[TrainJob]) -> None:
    first = jobs[0]
    if first.trainable != "lora":
        raise ValueError(f"trainable is {first.trainable}, expected lora")
    texts = ["row_id", "prompt", "answers"]
    for job in jobs[1:]:
        odd = [name for name in SHARED if getattr(job, name) != getattr(first, name)]
        if not job.rows.select(texts).equals(first.rows.select(texts)):
            odd.append("rows")
        if not job.test.equals(first.test):
            odd.append("test")
        if odd:
            raise ValueError(f"jobs {first.name} and {job.name} differ in {', '.join(odd)}")
