"""``perplexity``: how likely a model of no pair finds sampled answers after their prompts.

Text that only the pair's own models find likely is degenerate, and no checker need see it. The
model reads plain text, whether or not it has a chat template: a base model can say this too.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import exp
from statistics import fmean
from typing import Any

import pyarrow as pa

from w2s_ray.data.completions import completion_tokens
from w2s_ray.models.language_model import answer_log_probs, load_language_model
from w2s_ray.models.log_ratios import counted_tokens
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import PerplexityConfig
from w2s_ray.spec.training import Render
from w2s_ray.steps.answer_shards import in_shards
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import prompts_of
from w2s_ray.steps.samples import PERPLEXITY_SCHEMA, read_samples
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import PERPLEXITIES


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``perplexities.parquet``, and the perplexity of each split as a metric.

    Raises:
        ValueError: there is no answer to score.
    """
    config = step.config_as(PerplexityConfig)
    samples = read_samples(inputs["samples"])
    scored = [sample for sample in samples if sample["error"] is None and sample["text"]]
    if not scored:
        raise ValueError(f"none of {len(samples):,} samples has a text")
    splits = list(dict.fromkeys(sample["split"] for sample in samples))
    table = prompts_of(inputs, splits)
    prompts = dict(zip(table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    assert step.model is not None
    model = load_language_model(step.model, config.precision)
    tokens = completion_tokens(
        [_name(sample) for sample in scored],
        [prompt_before(prompts[sample["prompt_id"]], config.render) for sample in scored],
        [(sample["text"],) for sample in scored],
        model.backbone.tokenizer,
        render="transcript",
        end_id=None,
        max_length_tokens=config.max_length_tokens,
    )
    log_probs = in_shards(tokens, "perplexities", partial(answer_log_probs, model), context)
    sums = dict(zip(tokens.row_ids, log_probs[:, 0].tolist(), strict=True))
    counts = dict(zip(tokens.row_ids, counted_tokens(tokens)[:, 0].tolist(), strict=True))
    rows = [_row(of, sums.get(_name(of)), counts.get(_name(of), 0)) for of in samples]
    draft.write(PERPLEXITIES, pa.Table.from_pylist(rows, schema=PERPLEXITY_SCHEMA))
    draft.metrics.update(
        splits={split: {"perplexity": _of_split(rows, split)} for split in splits},
        answers=len(scored),
        truncated=tokens.truncated,
    )


def prompt_before(prompt: str, render: Render) -> str:
    """What stands before an answer: the prompt, and a blank line unless the answer goes on with it.

    Args:
        render: how the study's models read a prompt; ``transcript`` is text that goes on.
    """
    return prompt if render == "transcript" else f"{prompt}\n\n"


def _name(sample: Mapping[str, Any]) -> str:
    return f"{sample['prompt_id']}/{sample['sample']}"


def _row(sample: Mapping[str, Any], log_prob: float | None, tokens: int) -> dict[str, Any]:
    same = {name: sample[name] for name in ("split", "prompt_id", "sample")}
    return {**same, "log_prob": log_prob if tokens else None, "tokens": tokens}


def _of_split(rows: Sequence[Mapping[str, Any]], split: str) -> float | None:
    """The geometric mean of the answers' perplexities; None without any."""
    own = [
        -row["log_prob"] / row["tokens"] for row in rows if row["split"] == split and row["tokens"]
    ]
    return exp(fmean(own)) if own else None
