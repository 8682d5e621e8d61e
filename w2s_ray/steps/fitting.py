"""What ``weak``, ``ceiling`` and ``student`` share: rows with soft labels → a trained model.

A last-layer model is a head trained on stored features in this process; anything else is a
``TrainJob`` that the context may hand to several workers.
"""

from collections.abc import Mapping

import pyarrow as pa

from w2s_ray.objectives.objective import Objective
from w2s_ray.plan.graph import Step
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.steps.context import Context
from w2s_ray.steps.features import Features
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifacts import Artifact, Draft
from w2s_ray.training.engine import Adam
from w2s_ray.training.heads import HeadJob, fit_head
from w2s_ray.training.job import TrainJob


def fit_model(
    step: Step,
    inputs: Mapping[str, Artifact],
    rows: pa.Table,
    split: str,
    objective: Objective,
    draft: Draft,
    context: Context,
) -> None:
    """Trains on ``rows`` (of ``split``, with ``probs``); writes predictions, curve, weights."""
    data, settings = Rows(inputs["prepare"]), step.config["training"]
    test = data["test"]
    adam = Adam(tuple(settings["adam_betas"]), settings["adam_epsilon"], settings["clip_norm"])
    shared = {
        "rows": rows,
        "test": test,
        "num_classes": data.num_classes,
        "per_row": data.per_row,
        "objective": objective,
        "seed": step.config["seed"],
        "epochs": settings["epochs"],
        "batch_size": settings["batch_size"],
        "learning_rate": settings["learning_rate"],
        "schedule": settings["schedule"],
        "adam": adam,
    }
    if settings["trainable"] == "last_layer":
        features = Features(inputs["features"])
        head = HeadJob(
            **shared, features=features.of(split, rows), test_features=features.of("test", test)
        )
        draft.metrics.update(fit_head(head, draft.folder, progress=context.progress))
        return
    job = TrainJob(
        **shared,
        name=f"{step.slug}-{step.key}",
        model=ModelSpec.model_validate(step.execution["model"]),
        trainable=settings["trainable"],
        lora=Lora.model_validate(settings.get("lora", {})),
        max_length_tokens=settings["max_length_tokens"],
        precision=settings["precision"],
        keep_weights=step.kind == "weak" or step.kind in step.execution["keep_models"],
        execution=step.execution,
    )
    draft.metrics.update(context.fit(job, draft.folder, context.progress))
