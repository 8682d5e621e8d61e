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

from w2s_ray.data.held_out import validation_order
from w2s_ray.data.labels import one_hot, read_soft_labels
from w2s_ray.objectives.noise import apply_noise, noisy_rows
from w2s_ray.objectives.objective import GROUND_TRUTH, Objective
from w2s_ray.objectives.temperature import at_temperature
from w2s_ray.order import hashes, order
from w2s_ray.plan.configs import (
    LabelTreatment,
    Noise,
    StudentConfig,
    TrainConfig,
    Training,
)
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts
from w2s_ray.store.names import SOFT_LABELS
from w2s_ray.training.engine import Adam
from w2s_ray.training.trained_rows import Noised, TrainedRows
from w2s_ray.training.validation import HeldOut


class Validation(NamedTuple):
    """The rows on which a model is scored while it trains.

    Attributes:
        rows: (v,) positions in the table of the split ``weak``, ascending.
        held_out: their labels.
    """

    rows: NDArray[np.int64]
    held_out: HeldOut


class Supervision(NamedTuple):
    """What one model learns from.

    Attributes:
        rows: (n,) positions in the table of the split, ascending.
        soft_labels: (n, K) float32, in the order of ``rows``.
        weights: (n,) float32 with mean 1, of each row's loss; None: all 1.
        objective: what to do with them.
        validation: what the model is scored on while it trains; None: nothing.
    """

    rows: NDArray[np.int64]
    soft_labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    objective: Objective
    validation: Validation | None = None

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


class HeldOutRows:
    """The validation rows: those of the split ``weak`` with the lowest hashes of their ids.

    Args:
        weak: columns row_id and label of the split ``weak``.
    """

    def __init__(self, weak: pa.Table, num_classes: int) -> None:
        self._weak, self._num_classes = weak, num_classes

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return validation_order(self._weak["row_id"].to_pylist())

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = self._weak["label"].to_numpy()
        return labels

    def cut(
        self, supervision: Supervision, count: int, *, weak: bool, cuts: bool = True
    ) -> Supervision:
        """``supervision`` of a whole split, with ``count`` validation rows.

        Args:
            weak: whether the soft labels are a weak model's.
            cuts: whether the split is ``weak``: the rows are taken out of it, with their soft
                labels. Else they come with their true labels.

        Raises:
            ValueError: no row would remain.
        """
        if not count:
            return supervision
        if count >= len(self._order):
            raise ValueError(
                f"validation.rows: given {count:,}, expected less than {len(self._order):,}, the "
                "size of the split weak"
            )
        rows = np.sort(self._order[:count])
        labels = self._labels[rows]
        if not cuts:
            held_out = HeldOut(labels, one_hot(labels, self._num_classes), weak)
            return supervision._replace(validation=Validation(rows, held_out))
        held_out = HeldOut(labels, supervision.soft_labels[rows], weak)
        left_out = np.zeros(len(self._order), dtype=np.bool_)
        left_out[rows] = True
        return supervision.without(left_out)._replace(validation=Validation(rows, held_out))


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
        weak: columns row_id and label of the split ``weak``, from which validation rows come;
            None: that is ``rows``, and nothing is trained on its validation rows.
    """

    def __init__(
        self,
        rows: pa.Table,
        num_classes: int,
        artifacts: Artifacts,
        weak: pa.Table | None = None,
    ) -> None:
        self._rows, self._num_classes, self._artifacts = rows, num_classes, artifacts
        self._held_out = HeldOutRows(rows if weak is None else weak, num_classes)
        self._cuts = weak is None
        self._weak: dict[str, NDArray[np.float32]] = {}
        self._hashes: dict[int, NDArray[np.uint64]] = {}
        self._labels: dict[_Drawn, NDArray[np.float32]] = {}

    def of(self, step: Step) -> Supervision:
        """Rows, labels and objective of one step."""
        config = step.config_as(TrainConfig)
        if not isinstance(config, StudentConfig):
            whole = Supervision(self._all_rows, self._true, None, GROUND_TRUTH)
            return self._held_out.cut(whole, config.validation_rows, weak=False, cuts=self._cuts)
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
        whole = Supervision(self._all_rows, self._labels_of(drawn), None, objective)
        return self._held_out.cut(whole, config.validation_rows, weak=True)

    def noise_of(self, step: Step) -> Noised | None:
        """A student's labels before and after noise, of all rows of the table; None without noise.

        What is done to labels after noise (other rows, other labels) is not in them.
        """
        config = step.config
        if not isinstance(config, StudentConfig) or not config.noise.ratio:
            return None
        drawn = _Drawn(step.inputs["label"], config.labels, config.seed, config.noise)
        clean = drawn._replace(noise=Noise())
        noisy = np.zeros(self._rows.num_rows, dtype=np.bool_)
        noisy[noisy_rows(self._noise_hashes(config.seed), config.noise.ratio)] = True
        return Noised(self._labels_of(clean), self._labels_of(drawn), noisy)

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


def student_rows(
    step: Step, supervision: Supervision, targets: Targets, table: pa.Table
) -> TrainedRows | None:
    """The rows of ``table`` that a student learns from, with its labels; None of other models."""
    if step.kind.trained_on != "weak":
        return None
    noised = targets.noise_of(step)
    rows = supervision.rows
    return TrainedRows(
        table if len(rows) == table.num_rows else table.take(rows),
        supervision.soft_labels,
        None if noised is None else noised.take(rows),
    )


def adam(training: Training) -> Adam:
    """The optimizer's settings."""
    return Adam(training.adam_betas, training.adam_epsilon, training.clip_norm)
