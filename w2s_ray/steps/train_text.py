"""``align``, ``finetune`` and ``prefer``: a language model, trained on answers or on pairs of them.

Which objective it has says its configuration; ``training.fit_text`` trains it.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.contents import read_parquet
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import load_causal
from w2s_ray.models.log_ratios import answer_log_ratios, counted_tokens
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.plan.configs import Training
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import TextTrainConfig
from w2s_ray.spec.schema import ModelSpec
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import Prompts
from w2s_ray.steps.samples import is_usable, read_samples
from w2s_ray.steps.targets import adam
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import PAIRS
from w2s_ray.training.fit_text import fit_text
from w2s_ray.training.oom_retry import retry_on_oom
from w2s_ray.training.text_job import Dpo, Sft, TextJob, Wspo


class _Rows(NamedTuple):
    """Prompt and answers of each row that a model is trained on; of a pair the chosen one first."""

    row_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    left_out: int = 0


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes the trained parameters and the curve."""
    config = step.config_as(TextTrainConfig)
    training = config.training
    rows = _pairs(inputs["pairs"]) if "pairs" in inputs else _answers(inputs)
    assert step.model is not None
    objective: Sft | Dpo = Sft()
    if config.objective == "dpo":
        assert config.beta is not None
        objective = Dpo(config.beta)
    job = TextJob(
        name=f"{step.slug}-{step.key}",
        model=step.model,
        initial=inputs["model"].file(WEIGHTS) if "model" in inputs else None,
        row_ids=rows.row_ids,
        prompts=rows.prompts,
        answers=rows.answers,
        objective=objective,
        trainable=training.trainable,
        lora=training.lora,
        seed=config.seed,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        warmup=config.warmup,
        adam=adam(config),
        max_length_tokens=training.max_length_tokens,
        precision=training.precision,
        render=training.rendering.render,
        execution=step.execution,
        checkpoints=context.checkpoints,
    )
    if config.objective == "wspo":
        assert config.beta is not None
        ratios = _weak_log_ratios(step, inputs, job, context)
        job = replace(job, objective=Wspo(config.beta, ratios))
    fit = partial(fit_text, out=draft.folder, progress=context.progress, keep=context.keep)
    draft.metrics.update(retry_on_oom(job, fit))
    draft.metrics.update(rows=len(rows.row_ids), left_out=rows.left_out)


def _pairs(pairs: Artifact) -> _Rows:
    table = read_parquet(pairs.file(PAIRS))
    columns = (table[name].to_pylist() for name in ("chosen", "rejected"))
    return _Rows(
        tuple(table["row_id"].to_pylist()),
        tuple(table["prompt"].to_pylist()),
        tuple(zip(*columns, strict=True)),
    )


def _answers(inputs: Mapping[str, Artifact]) -> _Rows:
    """Sampled answers; those without a text, and those that were cut off, are left out.

    Raises:
        ValueError: none remains.
    """
    samples = read_samples(inputs["samples"])
    usable = [sample for sample in samples if is_usable(sample)]
    if not usable:
        raise ValueError(
            f"none of {len(samples):,} samples can be learned from: all are empty or cut off; "
            "raise decoding.max_new_tokens"
        )
    splits = list(dict.fromkeys(sample["split"] for sample in usable))
    table = Prompts(inputs["prompts"]).of(splits)
    prompts = dict(zip(table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    return _Rows(
        tuple(f"{sample['prompt_id']}/{sample['sample']}" for sample in usable),
        tuple(prompts[sample["prompt_id"]] for sample in usable),
        tuple((sample["text"],) for sample in usable),
        len(samples) - len(usable),
    )


def _weak_log_ratios(
    step: Step, inputs: Mapping[str, Artifact], job: TextJob, context: Context
) -> list[NDArray[np.float32]]:
    """Log-ratios of the weak model for the tokens of each of the job's answers.

    The strong model's tokens are used for both, which have one vocabulary.
    """
    post = inputs["post"]
    assert step.second_model is not None
    training = Training.from_json(post.record["config"]["training"])
    tokenizer = load_tokenizer(job.model)
    assert tokenizer.eos_token_id is not None
    tokens = job.encoded(tokenizer, int(tokenizer.eos_token_id))
    make = partial(
        _flat_log_ratios, step.second_model, job.precision, post.file(WEIGHTS), training, tokens
    )
    ends = np.cumsum(counted_tokens(tokens).sum(axis=1))[:-1]
    return np.split(context.keep("weak-log-ratios", make), ends)


def _flat_log_ratios(
    model: ModelSpec, precision: str, trained: Path, training: Training, tokens: Tokens
) -> NDArray[np.float32]:
    """(a,) log-ratios of a model after and before its training, row after row."""
    post = AnswerScorer(load_causal(model, precision, trained, training).module)
    pre = AnswerScorer(load_causal(model, precision).module)
    return np.concatenate(answer_log_ratios(post, pre, tokens))
