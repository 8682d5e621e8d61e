"""The training loop: one flat function, the same for every engine, objective and model.

It has no access to files, Ray or DeepSpeed. Batches come in as a stream of optimizer steps, each a
list of micro-batches; numbers go out through ``progress`` and the returned curve.

Two fused versions train many models at once where they share most of the work: ``batched_heads``
and ``batched_lora``. Their tests compare each model with what this loop gives for it alone.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, ThresholdBuffer, log_odds
from w2s_ray.training.engine import Batch, Engine
from w2s_ray.training.progress import Progress


@dataclass
class Curve:
    """The course of a training run: lists with one entry per optimizer step, and totals."""

    loss: list[float] = field(default_factory=list)  # nats, mean over the batch
    learning_rate: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)  # weight of the student's own hard label
    tokens: int = 0  # of all ranks, without those of rows of weight 0
    seconds: float = 0.0


class SavesState(Protocol):
    """Saves the state of a run while it trains (``resume.Checkpointer``)."""

    def due(self, update: int) -> bool:
        """Whether this rank wants the state saved after update ``update`` (from 1)."""

    def save(self, curve: Curve, buffer: ThresholdBuffer | None) -> None:
        """Saves the state; every rank calls this when at least one of them wants it.

        Raises:
            KeyboardInterrupt: the state is saved, and the training is to end (``early_end``).
        """


class Evaluates(Protocol):
    """Scores the model while it trains (``evaluations.Evaluations``)."""

    def due(self, step: int) -> bool:
        """Whether the model is scored after optimizer step ``step`` (from 1)."""

    def evaluate(self, step: int) -> None:
        """Scores the model as it is; every rank calls this."""


class RowLosses(Protocol):
    """The loss of each row of a batch (``objectives.objective.Objective``)."""

    def alpha(self, step: int, total_steps: int) -> float:
        """Weight of the student's own hard label at optimizer step ``step``, from 0."""

    def __call__(
        self,
        logits: Tensor,
        soft_labels: Tensor,
        *,
        alpha: float | Tensor,
        threshold: float | Tensor,
    ) -> Tensor:
        """(b, K) logits and soft labels of any K -> (b,) losses in nats."""


def learning_rate_at(
    step: int, total_steps: int, peak: float, schedule: str, warmup: float = 0.0
) -> float:
    """The rate of update ``step`` (0 … total − 1): constant, or a cosine from ``peak`` to 0.

    Args:
        warmup: share of the updates, rounded up to w of them, before the schedule begins: their
            rates rise linearly, peak · (step + 1) / (w + 1); none is 0, and the next is ``peak``.
    """
    rising = math.ceil(round(warmup * total_steps, 9))
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    step, total_steps = step - rising, total_steps - rising
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1.0 + math.cos(math.pi * step / total_steps))


def train(
    engine: Engine,
    stream: Iterable[list[Batch]],
    objective: RowLosses,
    *,
    total_steps: int,
    learning_rate: float,
    schedule: str = "cosine",
    warmup: float = 0.0,
    buffer: ThresholdBuffer | None = None,
    curve: Curve | None = None,
    checkpointer: SavesState | None = None,
    evaluations: Evaluates | None = None,
    progress: Progress = lambda numbers: None,
) -> Curve:
    """Trains until the stream ends.

    Longer than other functions so that a step reads from top to bottom in one piece.

    Args:
        engine: holds model and optimizer.
        stream: one list of micro-batches per optimizer step; the weights of a step sum to 1 over
            micro-batches and ranks.
        objective: per-row loss of (logits, soft labels, α, threshold).
        total_steps: optimizer steps of the whole run.
        learning_rate: the peak rate.
        warmup: as for ``learning_rate_at``.
        buffer: sets the threshold at which the student's own prediction becomes a hard label; None
            for preference pairs, where it is z = 0. The buffer sees whole batches, after their
            update, hence does not depend on how a batch is cut.
        curve: of the steps already made by the run that is resumed; the stream starts after them.
        checkpointer: saves the state of the run, for all ranks to restore.
        evaluations: scores the model at some of the steps; not counted in ``Curve.seconds``.

    Returns:
        The curve of the whole run.

    Raises:
        FloatingPointError: at the first loss or gradient that is not finite, naming the step.
        RuntimeError: the stream does not end at ``total_steps``.
    """
    curve = curve or Curve()
    started = time.monotonic() - curve.seconds
    resumed = {"resumed_at": len(curve.loss)} if curve.loss else {}
    for step, batches in enumerate(stream, start=len(curve.loss)):
        alpha = objective.alpha(step, total_steps)
        threshold = buffer.threshold if buffer else PREFERENCE_THRESHOLD
        loss, tokens = torch.zeros((), dtype=torch.float64), 0  # of this rank
        predictions, weights = [], []
        for number, batch in enumerate(batches, start=1):
            logits = engine.logits(batch.inputs)
            soft_labels = batch.soft_labels.to(logits.device)
            losses = objective(logits, soft_labels, alpha=alpha, threshold=threshold)
            weighted = (losses * batch.weights.to(logits.device)).sum()
            engine.backward(weighted, last=number == len(batches))
            loss = loss.to(logits.device) + weighted.detach()  # no wait for a GPU
            tokens += batch.tokens
            if buffer:
                predictions.append(log_odds(logits).cpu())
                weights.append(batch.weights)
        due = checkpointer is not None and checkpointer.due(step + 1)
        sums = torch.tensor([[loss.item(), tokens, due]], dtype=torch.float64)
        total, all_tokens, ranks_due = engine.gather(sums).sum(dim=0).tolist()
        if not math.isfinite(total):
            raise FloatingPointError(f"loss is {total} at step {step}")
        rate = learning_rate_at(step, total_steps, learning_rate, schedule, warmup)
        try:
            norm = engine.step(rate)
        except FloatingPointError as error:  # of an engine that refuses it by itself
            raise FloatingPointError(f"{error} at step {step}") from error
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm} at step {step}")
        if buffer:
            buffer.update(_of_all_ranks(engine, torch.cat(predictions), torch.cat(weights)))
        curve.tokens += int(all_tokens)
        curve.loss.append(total)
        curve.learning_rate.append(rate)
        curve.gradient_norm.append(norm)
        curve.alpha.append(alpha)
        curve.seconds = time.monotonic() - started
        progress(
            {
                "step": step + 1,
                "steps": total_steps,
                "loss": total,
                "tokens_per_second": curve.tokens / max(curve.seconds, 1e-9),
                **resumed,
            }
        )
        if evaluations is not None and evaluations.due(step + 1):
            began = time.monotonic()
            evaluations.evaluate(step + 1)
            started += time.monotonic() - began
        if checkpointer is not None and ranks_due:
            checkpointer.save(curve, buffer)
    if len(curve.loss) != total_steps:
        raise RuntimeError(f"the stream held {len(curve.loss)} steps, {total_steps} were planned")
    return curve


def _of_all_ranks(engine: Engine, predictions: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The predictions of all ranks whose weight is not 0; each rank gives (b,), b may differ."""
    both = torch.stack([predictions, weights], dim=1)
    most = int(engine.gather(torch.tensor([len(both)])).max())
    padded = engine.gather(torch.nn.functional.pad(both, (0, 0, 0, most - len(both))))
    return padded[padded[:, 1] > 0, 0]
