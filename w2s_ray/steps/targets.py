"""What a model learns from: a soft label for each row, and an objective.

The weak model and the ceiling learn the ground truth by forward cross-entropy, whatever the
students' loss is (reverse losses are unbounded on hard labels). A student learns the weak model's
labels, joined by row id, at a temperature, with noise, and treated (``treatment``): relabelled,
filtered, weighed. The labels of the test rows are never among them.
"""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.batches import no_pair_remains
from w2s_ray.data.held_out import validation_order
from w2s_ray.data.labels import one_hot, soft_labels_of
from w2s_ray.finite import check_rows
from w2s_ray.objectives.calibration import held_out
from w2s_ray.objectives.noise import apply_noise, noisy_rows
from w2s_ray.objectives.objective import GROUND_TRUTH, Objective
from w2s_ray.objectives.temperature import at_temperature
from w2s_ray.order import hashes, order
from w2s_ray.plan.configs import Noise, StudentConfig, TrainConfig, WeakConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts
from w2s_ray.steps.features import Features
from w2s_ray.steps.row_subsets import first_rows
from w2s_ray.steps.treatment import LabelSet, Treated, Treatments, label_facts
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
        facts: metrics of rows and labels, for the step's record.
        validation: what the model is scored on while it trains; None: nothing.
        left_out: how many of the rows that it could learn from it does not, of ``Targets``'
            ``left_out``.
    """

    rows: NDArray[np.int64]
    soft_labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    objective: Objective
    facts: Mapping[str, Any]
    validation: Validation | None = None
    left_out: int = 0


class HeldOutRows:
    """The validation rows: those of the split ``weak`` with the lowest hashes of their ids.

    Args:
        weak: columns row_id and label of the split ``weak``.
    """

    def __init__(self, weak: pa.Table) -> None:
        self._weak = weak

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return validation_order(self._weak["row_id"].to_pylist())

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """True classes of the whole split."""
        labels: NDArray[np.int64] = self._weak["label"].to_numpy()
        return labels

    def rows(self, count: int) -> NDArray[np.int64]:
        """Positions of ``count`` of them, ascending.

        Raises:
            ValueError: no row would remain to train on.
        """
        if count >= len(self._order):
            raise ValueError(
                f"validation.rows: given {count:,}, expected less than {len(self._order):,}, the "
                "size of the split weak"
            )
        return np.sort(self._order[:count])


class _Drawn(NamedTuple):
    """What decides a student's labels before they are treated.

    Attributes:
        label: key of the step that made the weak ones.
        shuffle: seed by which they are shuffled over the rows; None: they are not.
        seed: of the noise; 0 where there is none, so that seeds share their labels.
    """

    label: str
    shuffle: int | None
    temperature: float
    seed: int
    noise: Noise


class Targets:
    """Those on one table of rows; what several models share is read and computed once.

    Args:
        rows: columns row_id and label.
        artifacts: finds the weak labels, and features for the judges of labels.
        weak: columns row_id and label of the split ``weak``, from which validation rows come;
            None: that is ``rows``, and nothing is trained on its validation rows.
        per_row: texts a row; 2 for pairs.
        left_out: (N,) rows that no model learns from; None: there are none.
        split: of the rows.
        states: (N, m, H) features of the rows that are read already, by key.
    """

    def __init__(
        self,
        rows: pa.Table,
        num_classes: int,
        artifacts: Artifacts,
        weak: pa.Table | None = None,
        *,
        per_row: int = 2,
        left_out: NDArray[np.bool_] | None = None,
        split: str = "weak",
        states: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self._rows, self._num_classes, self._artifacts = rows, num_classes, artifacts
        self._left_out, self._split = left_out, split
        self._held_out, self._cuts = HeldOutRows(rows if weak is None else weak), weak is None
        self._states = dict(states or {})
        self._weak: dict[str, NDArray[np.float32]] = {}
        self._hashes: dict[int, NDArray[np.uint64]] = {}
        self._labels: dict[_Drawn, NDArray[np.float32]] = {}
        self._treatments = Treatments(self.row_ids, per_row)
        self._learned: dict[tuple[Any, ...], tuple[Treated, Mapping[str, Any]]] = {}

    def of(self, step: Step) -> Supervision:
        """Rows, labels and objective of one step.

        Raises:
            ValueError: no row remains to learn from.
        """
        config = step.config_as(TrainConfig)
        open_to = self._rows_of(config)
        rows = open_to if self._left_out is None else open_to[~self._left_out[open_to]]
        left_out = len(open_to) - len(rows)
        if left_out and not len(rows):
            raise ValueError(no_pair_remains(left_out))
        if not isinstance(config, StudentConfig):
            count: Mapping[str, Any] = {"trained_rows": len(rows)}
            true, validation = _taken(self._true, rows), self._validation(config)
            return Supervision(rows, true, None, GROUND_TRUTH, count, validation, left_out)
        wanted = config.objective
        objective = Objective(
            wanted.loss,
            wanted.loss_parameters,
            wanted.confidence_weight,
            wanted.confidence_warmup,
            wanted.confidence_form,
            wanted.label_clip,
        )
        treated, facts = self._treated(step, config, rows)
        validation = self._validation(config, self._labels_of(_drawn(step, config)))
        labels, weights = treated.soft_labels, treated.weights
        return Supervision(treated.rows, labels, weights, objective, facts, validation, left_out)

    def noise_of(self, step: Step) -> Noised | None:
        """A student's labels before and after noise, of all rows of the table; None without noise.

        What is done to labels after noise (other rows, other labels) is not in them.
        """
        config = step.config
        if not isinstance(config, StudentConfig) or not config.noise.ratio:
            return None
        drawn = _drawn(step, config)
        clean = drawn._replace(seed=0, noise=Noise())
        noisy = np.zeros(self._rows.num_rows, dtype=np.bool_)
        noisy[noisy_rows(self._noise_hashes(config.seed), config.noise.ratio)] = True
        return Noised(self._labels_of(clean), self._labels_of(drawn), noisy)

    def _validation(
        self, config: TrainConfig, soft_labels: NDArray[np.float32] | None = None
    ) -> Validation | None:
        """The validation rows with their labels.

        Args:
            soft_labels: (N, K) weak labels of the split; None: the true ones.
        """
        if not config.validation_rows:
            return None
        rows = self._held_out.rows(config.validation_rows)
        labels = self._held_out.labels[rows]
        if soft_labels is None:
            return Validation(rows, HeldOut(labels, one_hot(labels, self._num_classes), False))
        return Validation(rows, HeldOut(labels, soft_labels[rows], True))

    def _rows_of(self, config: TrainConfig) -> NDArray[np.int64]:
        """Positions of the rows that are open to a model, ascending, ``left_out`` among them."""
        present = np.ones(self._rows.num_rows, dtype=np.bool_)
        if isinstance(config, WeakConfig) and config.held_out:
            present[held_out(hashes(self.row_ids, "calibration"))] = False
        if config.validation_rows and self._cuts:
            present[self._held_out.rows(config.validation_rows)] = False
        rows = np.flatnonzero(present)
        if isinstance(config, StudentConfig) and config.train_rows is not None:
            rows = first_rows(rows, self._subset_hashes, config.train_rows)
        return rows

    def _treated(
        self, step: Step, config: StudentConfig, rows: NDArray[np.int64]
    ) -> tuple[Treated, Mapping[str, Any]]:
        """A student's rows and labels, and the metrics of them."""
        drawn = _drawn(step, config)
        features = step.inputs.get("label_features", step.inputs.get("features", ""))
        on = (features, rows.tobytes())
        name = (drawn, on, config.labels)
        if name not in self._learned:
            labels = _taken(self._labels_of(drawn), rows)
            label_set = LabelSet((drawn,), on, rows, labels, partial(self._states_of, features))
            treated = self._treatments(label_set, config.labels)
            row_ids = (self.row_ids[row] for row in treated.rows)
            check_rows(treated.soft_labels, "the labels to learn from", row_ids)
            if treated.weights is not None:
                row_ids = (self.row_ids[row] for row in treated.rows)
                check_rows(treated.weights, "the weights of the rows", row_ids)
            truth = self._rows["label"].to_numpy()[treated.rows]
            facts = label_facts(treated.soft_labels, truth)
            if treated.relabelled is not None:
                facts["relabelled_rows"] = treated.relabelled
            self._learned[name] = treated, facts
        return self._learned[name]

    def _labels_of(self, drawn: _Drawn) -> NDArray[np.float32]:
        if drawn not in self._labels:
            weak = self._weak_labels(drawn.label)
            if drawn.shuffle is not None:
                weak = weak[order(self.row_ids, drawn.shuffle, "shuffle")]
            weak = at_temperature(weak, drawn.temperature)
            hashes = self._noise_hashes(drawn.seed)
            noise = drawn.noise
            self._labels[drawn] = apply_noise(weak, hashes, noise.ratio, noise.strength)
        return self._labels[drawn]

    @cached_property
    def row_ids(self) -> list[str]:
        row_ids: list[str] = self._rows["row_id"].to_pylist()
        return row_ids

    @cached_property
    def _subset_hashes(self) -> NDArray[np.uint64]:
        return hashes(self.row_ids, "train_rows")

    @cached_property
    def _true(self) -> NDArray[np.float32]:
        return one_hot(self._rows["label"].to_numpy(), self._num_classes)

    def _weak_labels(self, key: str) -> NDArray[np.float32]:
        if key not in self._weak:
            table = self._artifacts(key).table(SOFT_LABELS)
            self._weak[key] = soft_labels_of(table, self.row_ids)
        return self._weak[key]

    def _noise_hashes(self, seed: int) -> NDArray[np.uint64]:
        if seed not in self._hashes:
            self._hashes[seed] = hashes(self.row_ids, seed, "noise")
        return self._hashes[seed]

    def _states_of(self, key: str) -> NDArray[np.float32]:
        if key not in self._states:
            self._states[key] = Features(self._artifacts(key)).of(self._split, self._rows)
        return self._states[key]


def _drawn(step: Step, config: StudentConfig) -> _Drawn:
    treatment = config.labels
    seed = config.seed if config.noise.ratio else 0
    shuffle = config.seed if treatment.shuffled else None
    return _Drawn(step.inputs["label"], shuffle, treatment.temperature, seed, config.noise)


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


def _taken(values: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """``values[rows]``; not a copy where ``rows`` are all."""
    return values if len(rows) == len(values) else values[rows]


def adam(config: TrainConfig) -> Adam:
    """The optimizer's settings; a student's have its anchor."""
    training = config.training
    return Adam(
        training.adam_betas,
        training.adam_epsilon,
        training.clip_norm,
        training.weight_decay,
        config.anchor if isinstance(config, StudentConfig) else 0.0,
    )
