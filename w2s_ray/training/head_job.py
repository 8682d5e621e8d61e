"""What a head is trained on and what comes out: the types that all ways of training heads share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam
from w2s_ray.training.loop import Curve
from w2s_ray.training.validation import HeldOut


@dataclass(frozen=True)
class HeadJob:
    """The labels and settings of one head.

    Attributes:
        soft_labels: (n, K) float32, in the order of the shared rows.
        weights: (n,) float32 above 0 with mean 1, of each row's loss; None: all 1.
        solver: sgd (batches, Adam), or newton or lbfgs (all rows at once, to the minimum), which
            ignore epochs, batch size, learning rate, schedule and Adam's settings but the anchor.
        evaluations: optimizer steps that are evaluated (``validation.evaluated_steps``).
        held_out: labels of the validation rows; None: the head is not evaluated.
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
    weights: NDArray[np.float32] | None = None
    evaluations: int = 1
    held_out: HeldOut | None = None


@dataclass(frozen=True)
class Inputs:
    """The rows that all heads of a group read: standardised features, of a pair the difference.

    Attributes:
        row_ids: n row ids, from which the order of an epoch is drawn.
        rows: (n, P) float32; the last column is a constant 1 where heads have a bias.
        num_classes: K.
        outputs: of a head: 1 for pairs, whose logits are (0, z), else K.
    """

    row_ids: list[str]
    rows: Tensor
    num_classes: int
    outputs: int


@dataclass(frozen=True)
class TrainedHead:
    """A head's weights on the shared inputs, and how they were reached.

    Attributes:
        weights: (outputs, P) float32.
        facts: further entries for the metrics of the step's record.
        evaluated: the evaluated optimizer steps; (): the last alone.
        snapshots: (outputs, P) float32 weights at each evaluated step before the last.
    """

    weights: Tensor
    curve: Curve
    facts: Mapping[str, Any] = field(default_factory=dict)
    evaluated: tuple[int, ...] = ()
    snapshots: Sequence[Tensor] = ()


def steps_of(job: HeadJob, inputs: Inputs) -> int:
    """Optimizer steps of one head."""
    return job.epochs * math.ceil(len(inputs.row_ids) / job.batch_size)


def reported_steps(job: HeadJob, rows: int) -> int:
    """Steps of one head in a report of progress: a solver counts as one."""
    return job.epochs * math.ceil(rows / job.batch_size) if job.solver == "sgd" else 1
