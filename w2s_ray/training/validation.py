"""Evaluation during training: which optimizer steps, on which rows, and what is stored.

The rows are held out of the split that students learn from. One training gives the whole curve over
its steps; which step a study uses is chosen afterwards, by ``evaluate``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from w2s_ray.contents import Content
from w2s_ray.finite import check_rows
from w2s_ray.objectives.objective import Objective

SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("weak_ce", pa.float64()),
        pa.field("weak_agreement", pa.float64()),
        pa.field("own_loss", pa.float64(), nullable=False),
        pa.field("accuracy", pa.float64(), nullable=False),
    ]
)


def evaluated_steps(total_steps: int, evaluations: int) -> tuple[int, ...]:
    """The optimizer steps (from 1) after which a model is evaluated, log-spaced, the last included.

    There are ``evaluations`` of them, or all steps where there are fewer; no step is there twice.
    """
    count = min(evaluations, total_steps)
    steps: list[int] = []
    for index, wanted in enumerate(np.geomspace(1, total_steps, count) if count > 1 else ()):
        earliest = steps[-1] + 1 if steps else 1
        steps.append(min(max(round(float(wanted)), earliest), total_steps - (count - 1 - index)))
    return tuple(steps) or (total_steps,)


@dataclass(frozen=True)
class HeldOut:
    """The labels of the validation rows.

    Attributes:
        labels: (v,) true classes.
        soft_labels: (v, K) float32 labels of the kind that the model learns from.
        weak: whether ``soft_labels`` are a weak model's; else they are the true ones.
    """

    labels: NDArray[np.int64]
    soft_labels: NDArray[np.float32]
    weak: bool

    def __post_init__(self) -> None:
        assert len(self.labels) == len(self.soft_labels)


@dataclass(frozen=True)
class Evaluated:
    """What the evaluations of one training gave; E evaluated steps.

    Attributes:
        steps: E steps, ascending; the last is the last of the training.
        scores: columns of ``validation.parquet`` beside the step, E values each.
        test_logits: of every step but the last, as ``compact`` gives them.
    """

    steps: tuple[int, ...]
    scores: Mapping[str, list[float] | None]
    test_logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuses what is not finite.

        Raises:
            FloatingPointError: a score or logit is not finite; names the step.
        """
        for name, values in self.scores.items():
            for step, value in zip(self.steps, values or (), strict=False):
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"{name} on the validation rows is {value} after step {step}"
                    )
        finite = np.isfinite(self.test_logits)
        if not finite.all():
            bad = ~finite.reshape(len(finite), -1).all(axis=1)
            step = self.steps[int(np.argmax(bad))]
            raise FloatingPointError(f"logits of test rows are not finite after step {step}")


def scores(
    logits: NDArray[np.float32], held_out: HeldOut, objective: Objective
) -> dict[str, list[float] | None]:
    """Scores of each evaluated step on the validation rows.

    ``weak_ce`` (Σ −w log s, nothing is clipped) and ``weak_agreement`` (a tie counts ½ for two
    classes, in general its share) are null without weak labels. ``own_loss`` is the mean of the
    model's own loss, without the confidence term, whose weight changes from step to step.

    Args:
        logits: (E, v, K).

    Raises:
        FloatingPointError: a logit is not finite.
    """
    check_rows(np.moveaxis(logits, 1, 0), "the logits of the validation rows")
    count = logits.shape[0]
    by_class = np.ascontiguousarray(np.moveaxis(logits, 2, 0), dtype=np.float64)  # (K, E, v)
    top = _shares(by_class)
    rows = np.arange(len(held_out.labels))
    correct = top[held_out.labels, :, rows].mean(axis=0)
    weak_ce = agreement = None
    if held_out.weak:
        soft = np.ascontiguousarray(held_out.soft_labels.T, dtype=np.float64)[:, None]
        shifted = by_class - by_class.max(axis=0)
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=0))
        weak_ce = (-(soft * log_probs).sum(axis=0).mean(axis=1)).tolist()
        agreement = (top * _shares(soft)).sum(axis=0).mean(axis=1).tolist()
    with torch.no_grad():
        losses = objective(
            torch.from_numpy(np.ascontiguousarray(logits)).flatten(0, 1),
            torch.from_numpy(held_out.soft_labels).repeat(count, 1),
        )
    own = losses.view(count, -1).double().mean(dim=1).tolist()
    return {
        "weak_ce": weak_ce,
        "weak_agreement": agreement,
        "own_loss": own,
        "accuracy": correct.tolist(),
    }


def compact(test_logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(E, t, K) logits as they are stored: (E, t) log-odds where that loses nothing.

    It does where the first class of two has logit 0 everywhere, as pairs have it.
    """
    if test_logits.shape[2] == 2 and not test_logits[:, :, 0].any():
        test_logits = test_logits[:, :, 1]
    return np.ascontiguousarray(test_logits)


def _shares(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 for the largest value along the first axis; a tie at the top is shared evenly."""
    top = values == values.max(axis=0)
    shares: NDArray[np.float64] = top / top.sum(axis=0)
    return shares


def evaluated_contents(evaluated: Evaluated) -> Mapping[str, Content]:
    """``validation.parquet`` and, of several steps, ``step_logits.npy``.

    The logits are those of every evaluated step but the last, whose predictions are
    ``test.parquet``.
    """
    count = len(evaluated.steps)
    columns = [evaluated.steps, *(evaluated.scores[name] for name in SCHEMA.names[1:])]
    arrays = [
        pa.nulls(count, field.type) if values is None else pa.array(values, field.type)
        for values, field in zip(columns, SCHEMA, strict=True)
    ]
    contents: dict[str, Content] = {
        "validation.parquet": pa.Table.from_arrays(arrays, schema=SCHEMA)
    }
    if count > 1:
        contents["step_logits.npy"] = evaluated.test_logits
    return contents
