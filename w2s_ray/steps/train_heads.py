"""``weak``, ``ceiling`` and ``student`` of which only the last layer is trained: all at once.

Heads on the same features differ in labels, loss, seed and rates only; they are one batched
problem. What they share is read once, and a head that fails fails alone.
"""

from collections import defaultdict
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
from w2s_ray.steps.targets import Supervision, Targets, adam
from w2s_ray.store.artifacts import Artifact, Draft
from w2s_ray.training.heads import FittedHead, HeadData, HeadJob, fit_heads, write_head

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
    targets = Targets(table, rows.num_classes, artifacts)
    states = features.of(split, table)
    test_states = features.of("test", test)
    identical = _identical(states)
    kept = trained_rows(identical, shared.config_as(TrainConfig).training.identical_pairs)
    left_out = np.ones(len(states), dtype=np.bool_)
    left_out[kept] = False
    exports = HeadExports(shared, rows)
    outcomes: list[Write | Exception] = [_NOT_TRAINED] * len(steps)
    on_rows: dict[bytes, list[tuple[int, Supervision]]] = defaultdict(list)
    for index, step in enumerate(steps):
        try:
            supervision = targets.of(step).without(left_out)
            on_rows[supervision.rows.tobytes()].append((index, supervision))
        except Exception as error:  # of this step's own labels
            outcomes[index] = error
    for members in on_rows.values():
        present = members[0][1].rows
        data = HeadData(
            row_ids=[targets.row_ids[row] for row in present],
            features=states if len(present) == len(states) else states[present],
            test=test,
            test_features=test_states,
            num_classes=rows.num_classes,
        )
        jobs = [_job(steps[index], supervision) for index, supervision in members]
        fitted = fit_heads(data, jobs, progress=context.progress)
        for (index, _), result in zip(members, fitted, strict=True):
            outcomes[index] = (
                result
                if isinstance(result, Exception)
                else partial(_write, result, data, steps[index], exports, identical)
            )
    return outcomes


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
        adam=adam(config),
    )


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
