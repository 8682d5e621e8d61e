"""``weak``, ``ceiling`` and ``student`` whose backbone is trained: rows with soft labels → a model.

The ``TrainJob`` may go to several workers, if the context has them. Heads on stored features are
trained in ``train_heads``, students whose adapters are trained together in ``train_adapters``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.spec.schema import Lora
from w2s_ray.steps.context import Artifacts, Context
from w2s_ray.steps.exports import card_of, is_exported
from w2s_ray.steps.model_export import ModelExport
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Targets, adam
from w2s_ray.store.artifacts import Artifact, Draft
from w2s_ray.training.job import TrainJob


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes predictions of the test rows, the curve, and the weights if they are to stay."""
    by_key = {key: inputs[role] for role, key in step.inputs.items()}
    (job,) = jobs([step], by_key.__getitem__)
    job = replace(job, checkpoints=context.checkpoints)
    draft.metrics.update(context.fit(job, draft.folder, context.progress))


def jobs(steps: Sequence[Step], artifacts: Artifacts) -> list[TrainJob]:
    """What is to be trained, for steps of one data set and split; shared tables are read once."""
    data = Rows(artifacts(steps[0].inputs["prepare"]))
    rows, test = data[str(steps[0].kind.trained_on)], data["test"]
    targets = Targets(rows, data.num_classes, artifacts)
    return [_job(step, data, rows, test, targets) for step in steps]


def _job(step: Step, data: Rows, rows: pa.Table, test: pa.Table, targets: Targets) -> TrainJob:
    config, kind = step.config_as(TrainConfig), step.kind
    training = config.training
    assert step.model is not None
    supervision = targets.of(step)
    whole = len(supervision.rows) == rows.num_rows
    return TrainJob(
        name=f"{step.slug}-{step.key}",
        model=step.model,
        rows=rows if whole else rows.take(supervision.rows),
        soft_labels=supervision.soft_labels,
        weights=supervision.weights,
        test=test,
        num_classes=data.num_classes,
        per_row=data.per_row,
        objective=supervision.objective,
        trainable=training.trainable,
        lora=training.lora or Lora(),
        max_length_tokens=training.max_length_tokens,
        rendering=training.rendering,
        identical_pairs=training.identical_pairs,
        precision=training.precision,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        adam=adam(config),
        export=ModelExport(card_of(step, data)) if is_exported(step) else None,
        keep_weights=kind.name == "weak" or kind.name in step.execution.keep_models,
        execution=step.execution,
        seed=config.seed,
    )
