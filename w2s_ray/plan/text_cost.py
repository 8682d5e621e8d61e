"""Rough cost of steps of generated text: how many rows and tokens each has, operations, seconds.

Lengths are guesses, so this is an order of magnitude.
"""

from typing import NamedTuple

from w2s_ray.capacity.generation import generation_seconds
from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.speed import Time, batch_tokens, flops_per_token, seconds_per_update
from w2s_ray.capacity.token_budgets import DECODED_ROWS, MICRO_BATCH_TOKENS
from w2s_ray.catalog.shapes import Shape
from w2s_ray.plan.configs import Precision
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import (
    GenerateConfig,
    PerplexityConfig,
    RatiosConfig,
    TextTrainConfig,
)

PROMPT_TOKENS = 40  # counted on the prompts of generate:constraints with SmolLM2's template
OF_MAXIMUM = 0.5  # share of max_new_tokens that an answer has
PAIRED = 0.5  # share of prompts whose samples give a pair
SCORED = {"sft": 0, "dpo": 2, "wspo": 1}
"""Times that each answer passes a model forward beside its training: the reference; after DPO the
trained model."""


class _Work(NamedTuple):
    """Rows of a step, and tokens of one row."""

    rows: float
    prompt_tokens: float
    answer_tokens: float


def text_passes(step: Step) -> float:
    """Operations per parameter: 2 a token forward, 6 forward and backward.

    A prompt is computed once for all its samples. Where two models are contrasted, or a trained one
    is scored under its reference, each answer passes two. What training scores: ``SCORED``.
    """
    config, work = step.config, _work(step)
    if isinstance(config, GenerateConfig):
        tokens = work.prompt_tokens + config.samples * work.answer_tokens
        return 2.0 * _models(step) * work.rows * tokens
    tokens = work.rows * (work.prompt_tokens + work.answer_tokens)
    if isinstance(config, PerplexityConfig | RatiosConfig):
        return 2.0 * _models(step) * tokens
    assert isinstance(config, TextTrainConfig)
    return (6.0 * config.training.epochs + 2.0 * SCORED[config.objective]) * tokens


def text_time(step: Step, model: Shape, precision: Precision, gpu: Gpu) -> Time:
    """The time of a step on such a GPU; a second model is taken to be as large as the first."""
    execution, config, work = step.execution, step.config, _work(step)
    if isinstance(config, GenerateConfig):
        seconds = generation_seconds(
            [model] * _models(step),
            gpu,
            precision=precision,
            batch_rows=execution.decoded_rows or DECODED_ROWS,
            prompts=round(work.rows),
            samples=config.samples,
            prompt_tokens=work.prompt_tokens,
            answer_tokens=work.answer_tokens,
        )
        return Time(0.0, seconds, seconds)
    row_tokens = work.prompt_tokens + work.answer_tokens
    forward = flops_per_token(model, row_tokens) / 3
    scoring = forward * work.rows * row_tokens / (gpu.flops[precision] * gpu.utilization)
    if isinstance(config, PerplexityConfig | RatiosConfig):
        seconds = _models(step) * scoring
        return Time(0.0, seconds, seconds)
    assert isinstance(config, TextTrainConfig)
    training = config.training
    batch = max(1, min(training.batch_size, round(work.rows)))
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
        recomputed=execution.activation_checkpointing,
    )
    scored = SCORED[config.objective] * scoring / execution.workers
    seconds = update * training.epochs * work.rows / batch + scored
    return Time(update, execution.workers * seconds, seconds)


def _models(step: Step) -> int:
    """Models that every token passes."""
    config = step.config
    if not isinstance(config, GenerateConfig):
        return 2 if isinstance(config, RatiosConfig) else 1
    of_mode = {"plain": 1 + ("model" in step.inputs), "contrastive": 2, "proxy": 3}
    return of_mode[config.mode]


def _work(step: Step) -> _Work:
    config, prompts = step.config, step.prompts
    assert prompts is not None
    if isinstance(config, GenerateConfig):
        rows = sum(prompts.rows(split) for split in config.splits)
        return _Work(rows, PROMPT_TOKENS, OF_MAXIMUM * config.max_new_tokens)
    if isinstance(config, PerplexityConfig | RatiosConfig):
        answers = config.answers
        rows = answers.samples * sum(prompts.rows(split) for split in answers.splits)
        return _Work(rows, PROMPT_TOKENS, OF_MAXIMUM * answers.max_new_tokens)
    assert isinstance(config, TextTrainConfig)
    answer = OF_MAXIMUM * config.training.max_length_tokens / 2
    if config.objective == "dpo":
        split = "train" if "model" in step.inputs else "align"
        given = None if step.data is None else step.data.sizes.ground_truth
        return _Work(given or PAIRED * prompts.rows(split), PROMPT_TOKENS, 2 * answer)
    return _Work(prompts.rows("train"), PROMPT_TOKENS, answer)
