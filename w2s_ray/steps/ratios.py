"""``ratios``: how the weak model's alignment has changed each token of its own answers.

WSPO trains a strong model to follow these log-ratios. They are a step of their own since the strong
model may be trained by a group of workers, and no process that starts one has a GPU for the weak
model before and after its alignment; and since all learning rates of a study follow the same ones.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.contents import read_parquet
from w2s_ray.data.completions import completion_tokens
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import load_causal
from w2s_ray.models.log_ratios import answer_log_ratios, counted_tokens
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import RatiosConfig
from w2s_ray.steps.answer_shards import in_shards
from w2s_ray.steps.context import Context
from w2s_ray.steps.examples import answers_of
from w2s_ray.steps.trained_text import load_trained
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import RATIOS

SCHEMA = pa.schema([("row_id", pa.string()), ("log_ratios", pa.list_(pa.float32()))])
"""One row per answer that can be learned from, by prompt_id/sample: log π_post − log π_pre of each
of its tokens, the end token among them."""


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``log_ratios.parquet``.

    Raises:
        ValueError: no answer can be learned from.
        FloatingPointError: a log-probability is not finite; names the row.
    """
    config, model = step.config_as(RatiosConfig), step.model
    assert model is not None
    rows = answers_of(inputs)
    before = load_causal(model, config.precision)
    tokens = completion_tokens(
        rows.row_ids,
        rows.prompts,
        rows.answers,
        before.tokenizer,
        render=config.rendering.render,
        end_id=before.end_ids[0],
        max_length_tokens=config.max_length_tokens,
    )

    @cache
    def scorers() -> tuple[AnswerScorer, AnswerScorer]:
        after = load_trained(model, config.precision, inputs["post"])
        return AnswerScorer(after.module), AnswerScorer(before.module)

    def log_ratios(shard: Tokens) -> NDArray[np.float32]:
        return np.concatenate(answer_log_ratios(*scorers(), shard))

    flat = in_shards(tokens, "log-ratios", log_ratios, context)
    ends = np.cumsum(counted_tokens(tokens).sum(axis=1))[:-1]
    columns = [tokens.row_ids, np.split(flat, ends)]
    draft.write(RATIOS, pa.table(columns, schema=SCHEMA))
    draft.metrics.update(
        answers=len(rows.row_ids), left_out=rows.left_out, truncated=tokens.truncated
    )


def read_ratios(artifact: Artifact) -> dict[str, NDArray[np.float32]]:
    """(tokens,) log-ratios of each answer, by its row id."""
    table = read_parquet(artifact.file(RATIOS))
    return {
        row_id: np.asarray(ratios, np.float32)
        for row_id, ratios in zip(*(table[n].to_pylist() for n in SCHEMA.names), strict=True)
    }
