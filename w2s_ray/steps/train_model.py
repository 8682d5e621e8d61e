"""``weak``, ``ceiling`` and ``student`` whose backbone is trained: rows with soft labels → a model.

The ``TrainJob`` may go to several workers, if the context has them. Heads on stored features are
trained in ``train_heads``, students whose adapters are trained together in ``train_adapters``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.plan.configs import StudentConfig, TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.spec.schema import Lora
from w2s_ray.steps.context import Artifacts, Context
from w2s_ray.steps.exports import card_of, is_exported
from w2s_ray.steps.model_export import ModelExport
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Supervision, Targets, adam, student_rows
from w2s_ray.steps.treatment import label_facts
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.training.job import TrainJob
from w2s_ray.training.trained_rows import TrainedRows


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes predictions of the test rows, the curve, and the weights if they are to stay."""
    by_key = {key: inputs[role] for role, key in step.inputs.items()}
    (planned,) = jobs([step], by_key.__getitem__)
    job = replace(planned.job, checkpoints=context.checkpoints)
    draft.metrics.update(context.fit(job, draft.folder, context.progress))
    planned.add_facts(draft.metrics)


@dataclass(frozen=True)
class PlannedJob:
    """A job, and what its record says of its rows and labels.

    Attributes:
        job: a model to train.
        supervision: its rows and labels; pairs with identical answers may be left out of them.
    """

    job: TrainJob
    supervision: Supervision

    def add_facts(self, metrics: dict[str, Any]) -> None:
        """Adds the facts to the metrics of the trained job, of the rows that it was trained on."""
        facts, job = dict(self.supervision.facts), self.job
        if metrics.get("identical_rows") and job.identical_pairs == "leave_out":
            tokens = job.encoded(job.rows, load_tokenizer(job.model))
            kept = np.flatnonzero(~tokens.identical)
            of_rows = label_facts(job.soft_labels[kept], job.rows["label"].to_numpy()[kept])
            facts |= {name: value for name, value in of_rows.items() if name in facts}
        metrics.update(facts)
        metrics["identical_rows"] = metrics.get("identical_rows", 0) + self.supervision.left_out


def jobs(steps: Sequence[Step], artifacts: Artifacts) -> list[PlannedJob]:
    """What is to be trained, for steps of one data set and split; shared tables are read once."""
    data = Rows(artifacts(steps[0].inputs["prepare"]))
    split = str(steps[0].kind.trained_on)
    rows, test = data[split], data["test"]
    weak = None if split == "weak" else data["weak"]

    treated = data.per_row == 2 and _is_treated_by_rows(steps[0])  # then all of them are
    targets = Targets(
        rows,
        data.num_classes,
        artifacts,
        weak,
        per_row=data.per_row,
        left_out=_identical_pairs(steps[0], rows) if treated else None,
        split=split,
    )
    held_out_from = rows if weak is None else weak
    planned = []
    for step in steps:
        supervision = targets.of(step)
        scored = _scored(step, data, rows, supervision, targets)
        job = _job(step, data, rows, test, supervision)
        job = replace(_with_validation(job, supervision, held_out_from), scored=scored)
        planned.append(PlannedJob(job, supervision))
    return planned


def _is_treated_by_rows(step: Step) -> bool:
    """Whether pairs with identical answers must be left out before the labels are treated."""
    config = step.config_as(TrainConfig)
    leaves_out = config.training.identical_pairs == "leave_out"
    return isinstance(config, StudentConfig) and config.labels.depends_on_rows and leaves_out


def _identical_pairs(step: Step, rows: pa.Table) -> NDArray[np.bool_]:
    """(N,) whether the answers of a pair are the same tokens."""
    training = step.config_as(TrainConfig).training
    assert step.model is not None
    tokenizer = load_tokenizer(step.model)
    return encode(rows, tokenizer, training.max_length_tokens, training.rendering).identical


def _scored(
    step: Step, data: Rows, rows: pa.Table, supervision: Supervision, targets: Targets
) -> TrainedRows | None:
    """The rows that students learn from, if the model is to score them."""
    if not step.scores_trained_rows:
        return None
    if step.kind.name == "ceiling":
        return TrainedRows(data["weak"])
    return student_rows(step, supervision, targets, rows)


def _with_validation(job: TrainJob, supervision: Supervision, held_out_from: pa.Table) -> TrainJob:
    """The job with its validation rows, which are of the split ``weak``."""
    validation = supervision.validation
    if validation is None:
        return job
    rows = held_out_from.take(validation.rows)
    return replace(job, validation=rows, held_out=validation.held_out)


def _job(
    step: Step, data: Rows, rows: pa.Table, test: pa.Table, supervision: Supervision
) -> TrainJob:
    config, kind = step.config_as(TrainConfig), step.kind
    training = config.training
    assert step.model is not None
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
        evaluations=training.evaluations,
    )
