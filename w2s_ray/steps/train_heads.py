"""``weak``, ``ceiling`` and ``student`` of which only the last layer is trained: all at once.

Heads on the same features differ in labels, loss, seed and rates only; they are one batched
problem. What they share is read once, and a head that fails fails alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.batches import trained_rows
from w2s_ray.models.model_card import EXPORT
from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.exports import HeadExports, is_exported
from w2s_ray.steps.features import Features
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Supervision, Targets, adam
from w2s_ray.store.artifacts import Artifact, Draft
from w2s_ray.training.head_job import reported_steps
from w2s_ray.training.heads import FittedHead, HeadData, HeadJob, fit_heads, write_head
from w2s_ray.training.progress import Progress

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

    Raises:
        Exception: what they share cannot be read, or all of them failed at once.
    """
    shared = steps[0]
    rows = Rows(artifacts(shared.inputs["prepare"]))
    features = Features(artifacts(shared.inputs["features"]))
    split = str(shared.kind.trained_on)
    table, test = rows[split], rows["test"]
    states = features.of(split, table)
    identical = _identical(states)
    kept = trained_rows(identical, shared.config_as(TrainConfig).training.identical_pairs)
    left_out = np.ones(len(states), dtype=np.bool_)
    left_out[kept] = False
    targets = Targets(
        table,
        rows.num_classes,
        artifacts,
        per_row=rows.per_row,
        left_out=left_out,
        split=split,
        states={shared.inputs["features"]: states},
    )
    outcomes: list[Write | Exception] = [_NOT_TRAINED] * len(steps)
    on_rows: dict[bytes, list[_Supervised]] = defaultdict(list)
    for index, step in enumerate(steps):
        try:
            supervision = targets.of(step)
        except Exception as error:  # of this step's own labels
            outcomes[index] = error
        else:
            one = _Supervised(index, step, supervision, _job(step, supervision))
            on_rows[supervision.rows.tobytes()].append(one)
    everything = (one for members in on_rows.values() for one in members)
    progress = _OneCount(sum(one.reported_steps for one in everything), context.progress)
    exports, test_states = HeadExports(shared, rows), features.of("test", test)
    for members in on_rows.values():
        present = members[0].supervision.rows
        data = HeadData(
            row_ids=[targets.row_ids[row] for row in present],
            features=states if len(present) == len(states) else states[present],
            test=test,
            test_features=test_states,
            num_classes=rows.num_classes,
        )
        progress.begin(sum(one.reported_steps for one in members))
        fitted = fit_heads(data, [one.job for one in members], progress=progress)
        for one, result in zip(members, fitted, strict=True):
            outcomes[one.position] = (
                result
                if isinstance(result, Exception)
                else partial(_write, result, test, one, exports, int(identical.sum()))
            )
    return outcomes


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
        adam=adam(training),
    )


def _write(
    fitted: FittedHead,
    test: pa.Table,
    trained: _Supervised,
    exports: HeadExports,
    identical: int,
    draft: Draft,
) -> None:
    write_head(fitted, test, draft.folder)
    if is_exported(trained.step):
        exports.write(trained.step, fitted, draft.folder / EXPORT)
    facts = trained.supervision.facts
    draft.metrics.update(fitted.metrics, identical_rows=identical, **facts)
