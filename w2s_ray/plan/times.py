"""How long the steps of a plan take on GPUs of the type that the spec names."""

from collections.abc import Iterable
from typing import Any

from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.speed import Time, batch_tokens, flops_per_token, seconds_per_update
from w2s_ray.capacity.token_budgets import MICRO_BATCH_TOKENS
from w2s_ray.catalog.shapes import Shape, shape
from w2s_ray.plan.configs import Precision, StudentConfig, TrainConfig, Training
from w2s_ray.plan.cost import rows, tokens_per_row
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_cost import text_time
from w2s_ray.spec.inputs import ModelSpec


def times(steps: Iterable[Step], precision: Precision, gpu: Gpu) -> dict[str, Time | None]:
    """The time of each step that runs a backbone, by key; None where its shape is not known.

    Args:
        precision: of the models.
        gpu: the type that they run on.
    """
    shapes: dict[ModelSpec, Shape | None] = {}
    known: dict[tuple[Any, ...], Time | None] = {}
    by_key: dict[str, Time | None] = {}
    for step in steps:
        model = step.backbone
        if model is None:
            continue
        if model not in shapes:
            shapes[model] = shape(model)
        training = _training(step)
        same = (step.kind.name, model, step.execution, training, step.data, _train_rows(step))
        if same not in known:
            dimensions = shapes[model]
            known[same] = (
                None if dimensions is None else _time(step, dimensions, training, precision, gpu)
            )
        by_key[step.key] = known[same]
    return by_key


def _training(step: Step) -> Training | None:
    return step.config_as(TrainConfig).training if step.kind.trains else None


def _train_rows(step: Step) -> int | None:
    """How many rows a student trains on at most; None: all."""
    return step.config.train_rows if isinstance(step.config, StudentConfig) else None


def _time(
    step: Step, model: Shape, training: Training | None, precision: Precision, gpu: Gpu
) -> Time:
    if step.prompts is not None:
        return text_time(step, model, precision, gpu)
    execution, data = step.execution, step.data
    assert data is not None
    counts, row_tokens = rows(data), tokens_per_row(data)
    forward = flops_per_token(model, row_tokens) / 3
    rate = gpu.flops[precision] * gpu.utilization
    scored = sum(counts[split] for split in step.kind.scored)
    if step.scores_trained_rows:
        scored += counts["weak"]
    scoring = forward * scored * row_tokens / rate
    if training is None or step.kind.trained_on is None:
        paid = scoring * execution.inference_gpus  # one of them computes at a time
        return Time(0.0, paid, scoring / execution.inference_workers)
    trained = counts[step.kind.trained_on]
    if limit := _train_rows(step):
        trained = min(trained, limit)
    batch = min(training.batch_size, trained)
    update = seconds_per_update(
        model,
        gpu,
        precision=precision,
        tokens=batch_tokens(batch, row_tokens, execution.workers),
        row_tokens=row_tokens,
        world=execution.workers,
        stage=execution.zero_stage,
        micro_batch_tokens=execution.micro_batch_tokens or MICRO_BATCH_TOKENS["gpu"],
        trainable=training.trainable,
        offload=execution.offload,
        recomputed=execution.activation_checkpointing,
        on_disk=execution.offload_path is not None,
    )
    trains = update * training.epochs * trained / batch
    return Time(update, execution.workers * trains + scoring, trains + scoring)
