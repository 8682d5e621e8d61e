"""``align``, ``finetune`` and ``prefer``: a language model, trained on answers or on pairs of them.

Which objective it has says its configuration; ``training.fit_text`` trains it.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.contents import read_parquet
from w2s_ray.data.completions import completion_tokens
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import CausalModel, load_causal
from w2s_ray.models.log_ratios import answer_log_ratios, counted_tokens
from w2s_ray.plan.configs import Training
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import TextTrainConfig
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.steps.context import Context, fit_in_process
from w2s_ray.steps.prompts import prompts_of
from w2s_ray.steps.samples import is_usable, read_samples
from w2s_ray.steps.targets import adam
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import PAIRS
from w2s_ray.training.fit_text import fit_text
from w2s_ray.training.oom_retry import retry_on_oom
from w2s_ray.training.text_job import Dpo, Sft, TextJob, Wspo


class _Rows(NamedTuple):
    """What a model is trained on: prompts, and of each its answers, of a pair the chosen first."""

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
    objective: Sft | Dpo | Wspo = Sft()
    if config.objective == "dpo":
        assert config.beta is not None
        objective = Dpo(config.beta)
    elif config.objective == "wspo":
        objective = _wspo(step, inputs, rows, context)
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
    if context.fit is not fit_in_process:  # workers keep nothing: all of them make the references
        draft.metrics.update(context.fit(job, draft.folder, context.progress))
    else:
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
    table = prompts_of(inputs, splits)
    prompts = dict(zip(table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    return _Rows(
        tuple(f"{sample['prompt_id']}/{sample['sample']}" for sample in usable),
        tuple(prompts[sample["prompt_id"]] for sample in usable),
        tuple((sample["text"],) for sample in usable),
        len(samples) - len(usable),
    )


def _wspo(step: Step, inputs: Mapping[str, Artifact], rows: _Rows, context: Context) -> Wspo:
    """The weak model's log-ratios for the answers; both models have one vocabulary."""
    config, post, model = step.config_as(TextTrainConfig), inputs["post"], step.second_model
    assert model is not None
    assert config.beta is not None
    precision, training = config.training.precision, config.training
    before = load_causal(model, precision)
    tokens = completion_tokens(
        rows.row_ids,
        rows.prompts,
        rows.answers,
        before.tokenizer,
        render=training.rendering.render,
        end_id=before.end_ids[0],
        max_length_tokens=training.max_length_tokens,
    )
    make = partial(_log_ratios, model, post, before, precision, tokens)
    flat = context.keep("weak-log-ratios", make)
    ends = np.cumsum(counted_tokens(tokens).sum(axis=1))[:-1]
    return Wspo(config.beta, tuple(np.split(flat, ends)))


def _log_ratios(
    model: ModelSpec, post: Artifact, before: CausalModel, precision: str, tokens: Tokens
) -> NDArray[np.float32]:
    """(a,) log π_post - log π_pre of the answers' tokens, row after row."""
    how = Training.from_json(post.record["config"]["training"])
    after = load_causal(model, precision, post.file(WEIGHTS), how)
    scorers = AnswerScorer(after.module), AnswerScorer(before.module)
    return np.concatenate(answer_log_ratios(*scorers, tokens))
