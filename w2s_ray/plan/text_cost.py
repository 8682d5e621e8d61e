"""Rough cost of steps of generated text, in operations per parameter of the model."""

from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import GenerateConfig, TextTrainConfig

PROMPT_TOKENS = 40  # counted on the prompts of generate:constraints with SmolLM2's template
OF_MAXIMUM = 0.5  # share of max_new_tokens that an answer has: a guess
PAIRED = 0.5  # share of prompts whose samples give a pair: a guess


def text_passes(step: Step) -> float:
    """Operations per parameter: 2 a token forward, 6 forward and backward.

    A prompt is computed once for all its samples. Where two models are contrasted, or a trained one
    is scored under its reference, each answer passes two.
    """
    config, prompts = step.config, step.prompts
    assert prompts is not None
    if isinstance(config, GenerateConfig):
        count = sum(prompts.rows(split) for split in config.splits)
        answers = config.samples * OF_MAXIMUM * config.max_new_tokens
        models = {"plain": 1 + ("model" in step.inputs), "contrastive": 2, "proxy": 3}[config.mode]
        return 2.0 * models * count * (PROMPT_TOKENS + answers)
    assert isinstance(config, TextTrainConfig)
    answer = OF_MAXIMUM * config.training.max_length_tokens / 2
    if config.objective == "sft":
        return 6.0 * config.training.epochs * prompts.rows("train") * (PROMPT_TOKENS + answer)
    split = "train" if "model" in step.inputs or config.objective == "wspo" else "align"
    rows = PAIRED * prompts.rows(split)
    trained = 6.0 * config.training.epochs * rows * (PROMPT_TOKENS + 2 * answer)
    return trained + 2.0 * rows * (PROMPT_TOKENS + 2 * answer)
