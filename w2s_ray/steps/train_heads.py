"""``weak``, ``ceiling`` and ``student`` of which only the last layer is trained: all at once.

Heads on the same features differ in labels, loss, seed and rates only; they are one batched
problem. What they share is read once, and a head that fails fails alone.
"""

from collections.abc import Mapping, Sequence
from functools import partial

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
    data = HeadData(
        row_ids=targets.row_ids,
        features=features.of(split, table),
        test=test,
        test_features=features.of("test", test),
        num_classes=rows.num_classes,
    )
    jobs = [_job(step, targets) for step in steps]
    sound = [job for job in jobs if not isinstance(job, Exception)]
    fitted = iter(fit_heads(data, sound, progress=context.progress) if sound else [])
    outcomes = [job if isinstance(job, Exception) else next(fitted) for job in jobs]
    exports = HeadExports(shared, rows)
    return [
        o if isinstance(o, Exception) else partial(_write, o, data, step, exports)
        for step, o in zip(steps, outcomes, strict=True)
    ]


def _job(step: Step, targets: Targets) -> HeadJob | Exception:
    config = step.config_as(TrainConfig)
    training = config.training
    try:
        soft_labels, objective = targets.of(step)
        return HeadJob(
            soft_labels=soft_labels,
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
    fitted: FittedHead, data: HeadData, step: Step, exports: HeadExports, draft: Draft
) -> None:
    write_head(fitted, data, draft.folder)
    if is_exported(step):
        exports.write(step, fitted, draft.folder / EXPORT)
    draft.metrics.update(fitted.metrics)
