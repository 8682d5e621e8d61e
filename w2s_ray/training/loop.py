"""The training loop: one flat function, the same for every engine, objective and model.

It knows nothing of files, Ray or DeepSpeed. Batches come in as a stream of optimizer steps, each
a list of micro-batches; numbers go out through ``progress`` and the returned curve.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, ThresholdBuffer, log_odds
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Batch, Engine

Progress = Callable[[dict[str, Any]], None]


@dataclass
class Curve:
    """One entry an optimizer step."""

    loss: list[float] = field(default_factory=list)  # nats, mean over the batch
    learning_rate: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)  # weight of the student's own hard label
    tokens: int = 0  # real tokens seen by all ranks
    seconds: float = 0.0


class Keeper(Protocol):
    """Keeps the state of a run (``checkpoints.Keeper``)."""

    def due(self, update: int) -> bool:
        """Whether this rank wants the state to be kept after update ``update``, from 1."""

    def save(self, curve: Curve, buffer: ThresholdBuffer | None) -> None:
        """Keeps it; every rank calls this if one of them wants it."""


def learning_rate_at(step: int, total_steps: int, peak: float, schedule: str) -> float:
    """Rate of update ``step`` (0 … total − 1): constant, or a cosine from ``peak`` towards 0."""
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1.0 + math.cos(math.pi * step / total_steps))


def train(
    engine: Engine,
    stream: Iterable[list[Batch]],
    objective: Objective,
    *,
    total_steps: int,
    learning_rate: float,
    schedule: str = "cosine",
    buffer: ThresholdBuffer | None = None,
    curve: Curve | None = None,
    keeper: Keeper | None = None,
    progress: Progress = lambda numbers: None,
) -> Curve:
    """Trains until the stream ends.

    Args:
        engine: holds model and optimizer.
        stream: one list of micro-batches an optimizer step, ``total_steps`` of them; the weights
            of a step sum to 1 over micro-batches and ranks.
        objective: per-row loss of (logits, soft labels, α, threshold).
        learning_rate: the peak rate.
        buffer: finds where the student's own prediction turns into a hard label; None for
            preference pairs, where that is z = 0. It sees whole batches, after their update,
            hence does not depend on how a batch is cut.
        curve: of the steps that are done already, to go on with; the stream begins behind them.
        keeper: keeps the state of the run where all ranks can find it again.

    Raises:
        FloatingPointError: at the first loss or gradient that is not finite, naming the step.
    """
    curve = curve or Curve()
    started = time.monotonic() - curve.seconds
    for step, batches in enumerate(stream, start=len(curve.loss)):
        alpha = objective.alpha(step, total_steps)
        threshold = buffer.threshold if buffer else PREFERENCE_THRESHOLD
        due = keeper is not None and keeper.due(step + 1)
        loss, tokens = torch.zeros((), dtype=torch.float64), 0  # of this rank
        predictions, weights = [], []
        for number, batch in enumerate(batches, start=1):
            logits = engine.logits(batch.inputs)
            soft_labels = batch.soft_labels.to(logits.device)
            losses = objective(logits, soft_labels, alpha=alpha, threshold=threshold)
            weighted = (losses * batch.weights.to(logits.device)).sum()
            engine.backward(weighted, last=number == len(batches))
            loss = loss.to(logits.device) + weighted.detach()  # a GPU is not waited for
            tokens += batch.tokens
            if buffer:
                predictions.append(log_odds(logits).cpu())
                weights.append(batch.weights)
        sums = torch.tensor([[loss.item(), tokens, due]], dtype=torch.float64)
        total, all_tokens, wishes = engine.gather(sums).sum(dim=0).tolist()
        if not math.isfinite(total):
            raise FloatingPointError(f"loss is {total} at step {step}")
        rate = learning_rate_at(step, total_steps, learning_rate, schedule)
        norm = engine.step(rate)
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
            }
        )
        if keeper is not None and wishes:
            keeper.save(curve, buffer)
    if len(curve.loss) != total_steps:
        raise RuntimeError(f"the stream held {len(curve.loss)} steps, {total_steps} were planned")
    return curve


def _of_all_ranks(engine: Engine, predictions: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The predictions, (b,) at each rank, that have a weight; b may differ from rank to rank."""
    both = torch.stack([predictions, weights], dim=1)
    most = int(engine.gather(torch.tensor([len(both)])).max())
    filled = engine.gather(torch.nn.functional.pad(both, (0, 0, 0, most - len(both))))
    return filled[filled[:, 1] > 0, 0]
