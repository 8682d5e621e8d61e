"""How long the steps of a plan take on GPUs of the type that the spec names."""

from collections.abc import Iterable
from functools import cache, partial
from typing import NamedTuple

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.speed import Time, batch_tokens, flops_per_token, seconds_per_update
from w2s_ray.capacity.token_budgets import MICRO_BATCH_TOKENS
from w2s_ray.catalog.shapes import Shape, shape
from w2s_ray.plan.configs import Precision, TrainConfig, Training
from w2s_ray.plan.cost import scored_rows, tokens_per_row, trained_rows
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
    by_key: dict[str, Time | None] = {}
    remembered = cache(partial(_time, precision=precision, gpu=gpu))
    for step in steps:
        model = step.backbone
        if model is None:
            continue
        if model not in shapes:
            shapes[model] = shape(model)
        dimensions = shapes[model]
        if dimensions is None:
            by_key[step.key] = None
        elif step.prompts is not None:
            by_key[step.key] = text_time(step, dimensions, precision, gpu)
        else:
            by_key[step.key] = remembered(dimensions, step.execution, _work(step))
    return by_key


class _Work(NamedTuple):
    """What a step does with rows of a data set.

    Attributes:
        scored: see ``scored_rows``.
        trained: rows of an epoch.
        training: None where it trains nothing.
    """

    row_tokens: int
    scored: int
    trained: int
    training: Training | None


def _work(step: Step) -> _Work:
    assert step.data is not None
    training = step.config_as(TrainConfig).training if step.kind.trains else None
    trained = 0 if training is None else trained_rows(step)
    return _Work(tokens_per_row(step.data), scored_rows(step), trained, training)


def _time(
    model: Shape, execution: Execution, work: _Work, *, precision: Precision, gpu: Gpu
) -> Time:
    row_tokens, scored, trained, training = work
    forward = flops_per_token(model, row_tokens) / 3
    rate = gpu.flops[precision] * gpu.utilization
    scoring = forward * scored * row_tokens / rate
    if training is None:
        paid = scoring * execution.inference_gpus  # one of them computes at a time
        return Time(0.0, paid, scoring / execution.inference_workers)
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
