"""``weak``, ``ceiling`` and ``student`` whose backbone is trained: rows with soft labels → a model.

The ``TrainJob`` may go to several workers, if the context has them. Heads on stored features are
trained in ``heads``, students whose adapters are trained together in ``adapters``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from w2s_ray.plan.graph import TRAINED_ON, Step
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.steps.context import Artifacts, Context
from w2s_ray.steps.exports import card_of, is_exported
from w2s_ray.steps.model_export import ModelExport
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Lessons, descent
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
    rows, test = data[TRAINED_ON[steps[0].kind]], data["test"]
    lessons = Lessons(rows, data.num_classes, artifacts)
    return [_job(step, data, rows, test, lessons) for step in steps]


def _job(step: Step, data: Rows, rows: pa.Table, test: pa.Table, lessons: Lessons) -> TrainJob:
    settings = step.config["training"]
    soft_labels, objective = lessons.of(step)
    return TrainJob(
        name=f"{step.slug}-{step.key}",
        model=ModelSpec.model_validate(step.execution["model"]),
        rows=rows,
        soft_labels=soft_labels,
        test=test,
        num_classes=data.num_classes,
        per_row=data.per_row,
        objective=objective,
        trainable=settings["trainable"],
        lora=Lora.model_validate(settings.get("lora", {})),
        max_length_tokens=settings["max_length_tokens"],
        precision=settings["precision"],
        export=ModelExport(card_of(step, data)) if is_exported(step) else None,
        keep_weights=step.kind == "weak" or step.kind in step.execution["keep_models"],
        execution=step.execution,
        seed=step.config["seed"],
        **descent(settings),
    )
