"""What a model learns from: a soft label for each row, and an objective.

The weak model and the ceiling learn the ground truth by forward cross-entropy, whatever the
students' loss is (reverse losses are unbounded on hard labels). A student learns the weak model's
labels, joined by row id, at a temperature and with noise; a treatment of the labels may leave rows
out and weight the others. The labels of the test rows are never among them.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.labels import one_hot, read_soft_labels
from w2s_ray.objectives.noise import apply_noise
from w2s_ray.objectives.objective import GROUND_TRUTH, Objective
from w2s_ray.objectives.temperature import at_temperature
from w2s_ray.order import hashes, order
from w2s_ray.plan.configs import LabelTreatment, Noise, StudentConfig, Training
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts
from w2s_ray.store.names import SOFT_LABELS
from w2s_ray.training.engine import Adam


class Supervision(NamedTuple):
    """What one model learns from.

    Attributes:
        rows: (n,) positions in the table of the split, ascending.
        soft_labels: (n, K) float32, in the order of ``rows``.
        weights: (n,) float32 with mean 1, of each row's loss; None: all 1.
        objective: what to do with them.
    """

    rows: NDArray[np.int64]
    soft_labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    objective: Objective

    def without(self, left_out: NDArray[np.bool_]) -> "Supervision":
        """The same without some rows.

        Args:
            left_out: (N,) by position in the table.
        """
        kept = np.flatnonzero(~left_out[self.rows])
        if len(kept) == len(self.rows):
            return self
        weights = None if self.weights is None else self.weights[kept]
        return self._replace(
            rows=self.rows[kept], soft_labels=self.soft_labels[kept], weights=weights
        )


class _Drawn(NamedTuple):
    """What decides a student's labels: the key of the weak ones, and what is done to them."""

    label: str
    treatment: LabelTreatment
    seed: int
    noise: Noise


class Targets:
    """Those on one table of rows; what several models share is read and computed once.

    Args:
        rows: columns row_id and label.
        artifacts: finds the weak labels.
    """

    def __init__(self, rows: pa.Table, num_classes: int, artifacts: Artifacts) -> None:
        self._rows, self._num_classes, self._artifacts = rows, num_classes, artifacts
        self._weak: dict[str, NDArray[np.float32]] = {}
        self._hashes: dict[int, NDArray[np.uint64]] = {}
        self._labels: dict[_Drawn, NDArray[np.float32]] = {}

    def of(self, step: Step) -> Supervision:
        """Rows, labels and objective of one step."""
        config = step.config
        if not isinstance(config, StudentConfig):
            return Supervision(self._all_rows, self._true, None, GROUND_TRUTH)
        wanted = config.objective
        drawn = _Drawn(step.inputs["label"], config.labels, config.seed, config.noise)
        objective = Objective(
            wanted.loss,
            wanted.loss_parameters,
            wanted.confidence_weight,
            wanted.confidence_warmup,
            wanted.confidence_form,
            wanted.label_clip,
        )
        return Supervision(self._all_rows, self._labels_of(drawn), None, objective)

    def _labels_of(self, drawn: _Drawn) -> NDArray[np.float32]:
        if drawn not in self._labels:
            weak = self._weak_labels(drawn.label)
            if drawn.treatment.shuffled:
                weak = weak[order(self.row_ids, drawn.seed, "shuffle")]
            weak = at_temperature(weak, drawn.treatment.temperature)
            hashes = self._noise_hashes(drawn.seed)
            noise = drawn.noise
            self._labels[drawn] = apply_noise(weak, hashes, noise.ratio, noise.strength)
        return self._labels[drawn]

    @cached_property
    def row_ids(self) -> list[str]:
        row_ids: list[str] = self._rows["row_id"].to_pylist()
        return row_ids

    @cached_property
    def _all_rows(self) -> NDArray[np.int64]:
        return np.arange(self._rows.num_rows)

    @cached_property
    def _true(self) -> NDArray[np.float32]:
        return one_hot(self._rows["label"].to_numpy(), self._num_classes)

    def _weak_labels(self, key: str) -> NDArray[np.float32]:
        if key not in self._weak:
            file = self._artifacts(key).folder / SOFT_LABELS
            self._weak[key] = read_soft_labels(file, self.row_ids)
        return self._weak[key]

    def _noise_hashes(self, seed: int) -> NDArray[np.uint64]:
        if seed not in self._hashes:
            self._hashes[seed] = hashes(self.row_ids, seed, "noise")
        return self._hashes[seed]


def adam(training: Training) -> Adam:
    """The optimizer's settings."""
    return Adam(training.adam_betas, training.adam_epsilon, training.clip_norm)
