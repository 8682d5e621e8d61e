"""``weak``, ``ceiling`` and ``student`` of which only the last layer is trained: all at once.

Heads on the same features differ in labels, loss, seed and rates only; they are one batched
problem. What they share is read once, and a head that fails fails alone.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.catalog.shapes import shape
from w2s_ray.data.batches import trained_rows
from w2s_ray.errors import InputError
from w2s_ray.models.model_card import EXPORT
from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.exports import HeadExports, is_exported
from w2s_ray.steps.features import Features
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Supervision, Targets, adam, student_rows
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import TRAINED_ROWS
from w2s_ray.training.head_job import reported_steps
from w2s_ray.training.heads import FittedHead, HeadData, HeadJob, fit_heads, head_contents
from w2s_ray.training.progress import Progress
from w2s_ray.training.trained_rows import TrainedRows, scored_rows

_NOT_TRAINED = AssertionError("a head that no group of rows holds")


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Trains one head."""
    by_key = {key: inputs[role] for role, key in step.inputs.items()}
    (outcome,) = run_together([step], by_key.__getitem__, context)
    if isinstance(outcome, Exception):
        raise outcome
    outcome(draft)


def run_together(
    steps: Sequence[Step], artifacts: Artifacts, context: Context
) -> list[Write | Exception]:
    """Trains the heads of ``steps``, which share features and split; one entry a step, in order.

    Longer than other functions: it hands what the heads share to those who need it.

    Raises:
        Exception: what they share cannot be read, or all of them failed at once.
    """
    shared = steps[0]
    rows = Rows(artifacts(shared.inputs["prepare"]))
    features = Features(artifacts(shared.inputs["features"]))
    split = str(shared.kind.trained_on)
    table, test = rows[split], rows["test"]
    weak = None if split == "weak" else rows.labels("weak")
    states = features.of(split, table)
    test_states = features.of("test", test)
    identical = _identical(states)
    kept = trained_rows(identical, shared.config_as(TrainConfig).training.identical_pairs)
    left_out = np.ones(len(states), dtype=np.bool_)
    left_out[kept] = False
    targets = Targets(
        table,
        rows.num_classes,
        artifacts,
        weak,
        per_row=rows.per_row,
        left_out=left_out,
        split=split,
        states={shared.inputs["features"]: states},
    )
    exports = HeadExports(shared, rows)
    backbone = _backbone_parameters(shared)
    scored = _ScoredRows(targets, table, lambda: (rows["weak"], features.of("weak", rows["weak"])))
    outcomes: list[Write | Exception] = [_NOT_TRAINED] * len(steps)
    on_rows: dict[tuple[bytes, bytes], list[_Supervised]] = defaultdict(list)
    for index, step in enumerate(steps):
        try:
            supervision = targets.of(step)
        except Exception as error:  # of this step's own labels
            outcomes[index] = error
        else:
            one = _Supervised(index, step, supervision, _job(step, supervision))
            on_rows[_rows_of(supervision)].append(one)
    everything = (one for members in on_rows.values() for one in members)
    progress = _OneCount(sum(one.reported_steps for one in everything), context.progress)
    for members in on_rows.values():
        present, validation = members[0].supervision.rows, members[0].supervision.validation
        held_out = None
        if validation is not None:
            weak_states = states if weak is None else features.of("weak", weak)
            held_out = weak_states[validation.rows]
        data = HeadData(
            row_ids=[targets.row_ids[row] for row in present],
            features=states if len(present) == len(states) else states[present],
            test=test,
            test_features=test_states,
            num_classes=rows.num_classes,
            validation_features=held_out,
            also_scored=scored.features(steps, states, present),
        )
        progress.begin(sum(one.reported_steps for one in members))
        fitted = fit_heads(data, [one.job for one in members], progress=progress)
        for one, result in zip(members, fitted, strict=True):
            outcomes[one.position] = (
                result
                if isinstance(result, Exception)
                else partial(
                    _write,
                    result,
                    test,
                    one,
                    exports,
                    int(identical.sum()),
                    scored.rows(one.step, one.supervision),
                    backbone,
                )
            )
    return outcomes


def _rows_of(supervision: Supervision) -> tuple[bytes, bytes]:
    """Equal for heads that read the same rows."""
    validation = supervision.validation
    held_out = b"" if validation is None else validation.rows.tobytes()
    return supervision.rows.tobytes(), held_out


class _ScoredRows:
    """The rows that heads score beside the test rows: those that students learn from.

    Args:
        targets: on ``table``.
        table: rows of the split that the heads are trained on.
        weak: reads rows and (n, m, H) features of the split that students are trained on.
    """

    def __init__(
        self,
        targets: Targets,
        table: pa.Table,
        weak: Callable[[], tuple[pa.Table, NDArray[np.float32]]],
    ) -> None:
        self._targets, self._weak = targets, cache(weak)
        self._row_ids = table.select(["row_id"])

    def features(
        self, steps: Sequence[Step], states: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """(u, m, H) of what the heads of ``steps`` score; None where none of them scores any.

        Args:
            states: of the table.
            rows: positions of those that are trained on.
        """
        scoring = [step for step in steps if step.scores_trained_rows]
        if any(step.kind.trained_on == "weak" for step in scoring):  # then all of the group are
            return states if len(rows) == len(states) else states[rows]
        return self._weak()[1] if scoring else None

    def rows(self, step: Step, supervision: Supervision) -> TrainedRows | None:
        """Those rows, with the labels that a student saw; None if ``step`` scores none."""
        if not step.scores_trained_rows:
            return None
        if step.kind.name == "ceiling":
            return TrainedRows(self._weak()[0].select(["row_id"]))
        return student_rows(step, supervision, self._targets, self._row_ids)


class _Supervised(NamedTuple):
    """One head to train, and its place among the steps."""

    position: int
    step: Step
    supervision: Supervision
    job: HeadJob

    @property
    def reported_steps(self) -> int:
        """Its share of the progress."""
        return reported_steps(self.job, len(self.supervision.rows))


class _OneCount:
    """Progress of groups that are trained one after the other, as one count of steps.

    Args:
        total: steps of all groups.
    """

    def __init__(self, total: int, progress: Progress) -> None:
        self._end, self._total, self._progress = 0, total, progress

    def begin(self, steps: int) -> None:
        """The next group begins, which has so many steps; some may be refused, and never come."""
        self._end += steps

    def __call__(self, numbers: dict[str, Any]) -> None:
        remaining = numbers["steps"] - numbers["step"]
        self._progress({**numbers, "step": self._end - remaining, "steps": self._total})


def _identical(states: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) whether both answers of a pair have one state, as equal texts have; from (n, m, H)."""
    if states.shape[1] == 1:
        return np.zeros(len(states), dtype=np.bool_)
    same: NDArray[np.bool_] = (states[:, 0] == states[:, 1]).all(axis=1)
    return same


def _backbone_parameters(step: Step) -> int | None:
    """Number of parameters below the head, for the record; no head fails where it is unknown."""
    with suppress(InputError):
        block = step.config_as(TrainConfig).training.readout_block
        known = None if step.model is None else shape(step.model.read_after(block))
        return None if known is None else known.parameters
    return None


def _job(step: Step, supervision: Supervision) -> HeadJob:
    config = step.config_as(TrainConfig)
    training = config.training
    return HeadJob(
        soft_labels=supervision.soft_labels,
        weights=supervision.weights,
        objective=supervision.objective,
        seed=config.seed,
        solver=training.solver or "sgd",
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        adam=adam(config),
        evaluations=training.evaluations,
        held_out=None if supervision.validation is None else supervision.validation.held_out,
    )


def _write(
    fitted: FittedHead,
    test: pa.Table,
    one: _Supervised,
    exports: HeadExports,
    identical: int,
    scored: TrainedRows | None,
    backbone: int | None,
    draft: Draft,
) -> None:
    """Writes one head's artifact.

    Args:
        identical: pairs whose answers are the same.
        scored: rows that it has scored beside the test rows.
        backbone: number of parameters below the head; None: unknown.
    """
    step, supervision = one.step, one.supervision
    for name, content in head_contents(fitted, test).items():
        draft.write(name, content)
    if scored is not None and fitted.other_logits is not None:
        rows = scored_rows(scored, fitted.other_logits)
        draft.write(TRAINED_ROWS, rows.table)
        draft.metrics.update(rows.metrics)
    if is_exported(step):
        exports.write(step, fitted, draft.folder / EXPORT)
    draft.metrics.update(fitted.metrics, identical_rows=identical, **supervision.facts)
    trained = sum(tensor.numel() for tensor in fitted.state.values())
    training = step.config_as(TrainConfig).training
    rounds = training.epochs if training.solver == "sgd" else len(fitted.curve.loss)
    draft.metrics.update(
        parameters=None if backbone is None else backbone + trained,
        trained_parameters=trained,
        flops=6.0 * trained * len(supervision.rows) * rounds,
    )
