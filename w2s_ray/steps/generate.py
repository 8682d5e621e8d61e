"""``generate``: answers to prompts, sampled from one model or two.

Prompts are answered in shards, each of which is kept as soon as it is done, so a step that was
killed resumes at its next shard. Every draw depends on seed, prompt and number of the sample alone.
A prompt that cannot be answered has a row that says why. Where memory runs out, fewer rows generate
together from then on; their tokens are the same, but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.capacity.token_budgets import DECODED_ROWS, DECODED_TOKENS
from w2s_ray.data.completions import prompt_tokens
from w2s_ray.data.rendering import RowError
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.causal import CausalModel, load_causal
from w2s_ray.models.decoding import COMBINED, Decoded, Decoding, decode
from w2s_ray.models.language_model import LanguageModel, answer_log_probs, load_language_model
from w2s_ray.order import hashes
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import GenerateConfig
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import prompts_of
from w2s_ray.steps.samples import SCHEMA, kept_rows
from w2s_ray.steps.trained_text import load_trained
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import SAMPLES
from w2s_ray.training.oom_retry import MAX_OOM_RETRIES, free_memory, is_out_of_memory


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``samples.parquet`` (``samples.SCHEMA``)."""
    config = step.config_as(GenerateConfig)
    prompts = prompts_of(inputs, config.splits)
    sampler = _sampler(step, config, inputs)
    parts: list[pa.Table] = []
    length = max(1, sampler.batch_rows // config.samples)
    for first in range(0, prompts.num_rows, length):
        shard = prompts.slice(first, length).to_pylist()
        name = f"samples-{first:06}-of-{length}"
        parts.append(kept_rows(context.keep, name, SCHEMA, partial(_shard, sampler, shard)))
        done = min(first + length, prompts.num_rows)
        context.progress({"step": done, "steps": prompts.num_rows, "unit": "prompts"})
    table = pa.concat_tables(parts)
    draft.write(SAMPLES, table)
    tokens = sum(map(len, table["tokens"].to_pylist()))
    draft.metrics.update(
        prompts=prompts.num_rows,
        samples=table.num_rows,
        tokens=tokens,
        cut_off=sum(table["cut_off"].to_pylist()),
        without_answer=table.num_rows - table["error"].null_count,
        out_of_memory=sampler.out_of_memory,
    )


@dataclass
class _Sampler:
    """Models and settings of a step.

    Attributes:
        models: by role, as ``decode`` takes them.
        reference: the sampled model before its training; None: it has none, or it is among
            ``models``.
        planned_rows: rows that generate text together, by the planner; None: it said nothing.
        out_of_memory: how often memory ran out in this process; each time halves the rows.
    """

    config: GenerateConfig
    models: Mapping[str, CausalModel]
    reference: LanguageModel | None
    planned_rows: int | None
    out_of_memory: int = 0

    @property
    def batch_rows(self) -> int:
        return (self.planned_rows or DECODED_ROWS) >> self.out_of_memory

    @property
    def batch_tokens(self) -> int | None:
        return None if self.planned_rows else DECODED_TOKENS >> self.out_of_memory

    def decode(self, asked: Sequence[Sequence[int]], seeds: NDArray[np.uint64]) -> Decoded:
        """An answer to each prompt, by so many rows as memory allows.

        Raises:
            Exception: memory runs out however few there are.
        """
        while True:
            try:
                return decode(
                    self.models,
                    asked,
                    seeds,
                    self.decoding,
                    batch_rows=self.batch_rows,
                    batch_tokens=self.batch_tokens,
                )
            except Exception as error:
                exhausted = self.out_of_memory == MAX_OOM_RETRIES or self.batch_rows == 1
                if exhausted or not is_out_of_memory(error):
                    raise
            self.out_of_memory += 1
            free_memory()

    @property
    def main(self) -> CausalModel:
        """The model whose tokens are drawn."""
        return self.models["model"]

    @property
    def decoding(self) -> Decoding:
        config = self.config
        return Decoding(
            mode=config.mode,
            alpha=1.0 if config.alpha is None else config.alpha,
            head=config.head,
            temperature=config.temperature,
            top_p=config.top_p,
            repetition_penalty=config.repetition_penalty,
            penalty_on=config.penalty_acts_on,
            max_new_tokens=config.max_new_tokens,
            stop=config.stop,
        )


def _sampler(step: Step, config: GenerateConfig, inputs: Mapping[str, Artifact]) -> _Sampler:
    """Loads the models: with the weights of the inputs ``model`` and ``post``, where given."""
    assert step.model is not None
    trained = inputs.get("model")
    models = {"model": load_trained(step.model, config.precision, trained)}
    reference = None
    if config.mode == "contrastive":
        models["pre"] = load_causal(step.model, config.precision)
    elif config.mode == "proxy":
        assert step.second_model is not None
        models["pre"] = load_causal(step.second_model, config.precision)
        models["post"] = load_trained(step.second_model, config.precision, inputs["post"])
    elif trained is not None:
        reference = load_language_model(step.model, config.precision)
    return _Sampler(config, models, reference, step.execution.decoded_rows)


def _shard(sampler: _Sampler, prompts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of some prompts."""
    config = sampler.config
    rows: list[dict[str, Any]] = []
    asked: list[list[int]] = []
    encoded = _encoded(sampler, [row["prompt"] for row in prompts])
    for row, (ids, error) in zip(prompts, encoded, strict=True):
        for sample in range(config.samples):
            same = {"split": row["split"], "prompt_id": row["prompt_id"], "sample": sample}
            rows.append({**same, "text": None, "tokens": [], "cut_off": False, "error": error})
            if error is None:
                asked.append(ids)
    answered = [row for row in rows if row["error"] is None]
    if answered:
        names = [f"{row['prompt_id']}/{row['sample']}" for row in answered]
        seeds = hashes(names, config.seed, config.draws)
        _fill(answered, sampler, asked, sampler.decode(asked, seeds))
    return rows


def _encoded(sampler: _Sampler, prompts: Sequence[str]) -> list[tuple[list[int], str | None]]:
    """The tokens of each prompt, or why it cannot be answered."""
    config, tokenizer = sampler.config, sampler.main.tokenizer
    render = config.rendering.render
    try:
        encoded = prompt_tokens(tokenizer, prompts, render)
    except RowError as error:
        if len(prompts) == 1:
            return [([], error.reason)]
        return [of for prompt in prompts for of in _encoded(sampler, [prompt])]
    return [(ids, _too_long(config, ids)) for ids in encoded]


def _too_long(config: GenerateConfig, ids: Sequence[int]) -> str | None:
    if len(ids) + config.max_new_tokens <= config.max_length_tokens:
        return None
    return (
        f"the prompt has {len(ids):,} tokens, which with max_new_tokens "
        f"({config.max_new_tokens:,}) is more than max_length_tokens "
        f"({config.max_length_tokens:,})"
    )


def _fill(
    rows: Sequence[dict[str, Any]],
    sampler: _Sampler,
    prompts: Sequence[Sequence[int]],
    decoded: Decoded,
) -> None:
    """Texts, tokens and log-probabilities of the rows that were answered."""
    reference_of: Mapping[str, str] = {"contrastive": "pre", "proxy": "model"}
    reference = decoded.log_probs.get(reference_of.get(sampler.config.mode, ""))
    log_probs = decoded.log_probs.get(COMBINED, decoded.log_probs["model"])
    if sampler.reference is not None:
        reference = _under_reference(sampler, rows, prompts, decoded)
    for number, row in enumerate(rows):
        row["tokens"] = decoded.tokens[number]
        row["text"] = decoded.texts[number]
        row["cut_off"] = not decoded.finished[number]
        row["log_prob"] = float(log_probs[number])
        row["log_prob_reference"] = None if reference is None else float(reference[number])


def _under_reference(
    sampler: _Sampler,
    rows: Sequence[Mapping[str, Any]],
    prompts: Sequence[Sequence[int]],
    decoded: Decoded,
) -> NDArray[np.float32]:
    """(n,) summed log-probabilities of the answers under the model before its training."""
    assert sampler.reference is not None
    answers = [
        [*tokens] if end is None else [*tokens, end]
        for tokens, end in zip(decoded.tokens, decoded.end_tokens, strict=True)
    ]
    flat = [i for prompt, answer in zip(prompts, answers, strict=True) for i in (*prompt, *answer)]
    lengths = [(len(p), len(a)) for p, a in zip(prompts, answers, strict=True)]
    tokens = Tokens(
        row_ids=[f"{row['prompt_id']}/{row['sample']}" for row in rows],
        ids=np.asarray(flat, dtype=np.int32),
        segments=np.asarray(lengths, dtype=np.int64),
        truncated=0,
    )
    sums: NDArray[np.float32] = answer_log_probs(sampler.reference, tokens)[:, 0]
    return sums
