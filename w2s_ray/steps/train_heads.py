"""``weak``, ``ceiling`` and ``student`` of which only the last layer is trained: all at once.

Heads on the same features differ in labels, loss, seed and rates only; they are one batched
problem. What they share is read once, and a head that fails fails alone.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.batches import trained_rows
from w2s_ray.models.model_card import EXPORT
from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.exports import HeadExports, is_exported
from w2s_ray.steps.features import Features
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Targets, adam
from w2s_ray.store.artifacts import Artifact, Draft
from w2s_ray.training.heads import FittedHead, HeadData, HeadJob, fit_heads, write_head


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
    targets = Targets(table, rows.num_classes, artifacts)
    states = features.of(split, table)
    identical = _identical(states)
    kept = trained_rows(identical, shared.config_as(TrainConfig).training.identical_pairs)
    data = HeadData(
        row_ids=[targets.row_ids[row] for row in kept],
        features=states if len(kept) == len(states) else states[kept],
        test=test,
        test_features=features.of("test", test),
        num_classes=rows.num_classes,
    )
    jobs = [_job(step, targets, kept) for step in steps]
    sound = [job for job in jobs if not isinstance(job, Exception)]
    fitted = iter(fit_heads(data, sound, progress=context.progress) if sound else [])
    outcomes = [job if isinstance(job, Exception) else next(fitted) for job in jobs]
    exports = HeadExports(shared, rows)
    return [
        o if isinstance(o, Exception) else partial(_write, o, data, step, exports, identical)
        for step, o in zip(steps, outcomes, strict=True)
    ]


def _identical(states: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) whether both answers of a pair have one state, as equal texts have; from (n, m, H)."""
    if states.shape[1] == 1:
        return np.zeros(len(states), dtype=np.bool_)
    same: NDArray[np.bool_] = (states[:, 0] == states[:, 1]).all(axis=1)
    return same


def _job(step: Step, targets: Targets, kept: NDArray[np.int64]) -> HeadJob | Exception:
    config = step.config_as(TrainConfig)
    training = config.training
    try:
        soft_labels, objective = targets.of(step)
        return HeadJob(
            # No copy where all are kept: many heads share one array.
            soft_labels=soft_labels if len(kept) == len(soft_labels) else soft_labels[kept],
            objective=objective,
            seed=config.seed,
            solver=training.solver or "sgd",
            epochs=training.epochs,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            schedule=training.schedule,
            adam=adam(training),
        )
    except Exception as error:  # of this step's own labels or settings
        return error


def _write(
    fitted: FittedHead,
    data: HeadData,
    step: Step,
    exports: HeadExports,
    identical: NDArray[np.bool_],
    draft: Draft,
) -> None:
    write_head(fitted, data, draft.folder)
    if is_exported(step):
        exports.write(step, fitted, draft.folder / EXPORT)
    draft.metrics.update(fitted.metrics, identical_rows=int(identical.sum()))
