"""``untrained``: the strong model before any training chooses the answer that it finds more likely.

The logit of a pair is z = log p(answer A | prompt) − log p(answer B | prompt), summed over tokens,
so a longer answer is less likely as it stands. The accuracy of the means over tokens is in the
record beside it. A row's labels are never read.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.labels import probs_column
from w2s_ray.data.tokens import Tokens
from w2s_ray.plan.configs import FeaturesConfig
from w2s_ray.plan.step import Step
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.steps.context import Context
from w2s_ray.steps.metrics import accuracy, softmax
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.shards import Loaded, Sharded
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import TEST_PREDICTIONS


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``test.parquet``: row_id, label, probs."""
    shards = sharded(step, inputs, context)
    draft.metrics.update(shards.spread())
    answers = likelihoods(shards)
    test, probs = shards.rows["test"], softmax(answers.logits)
    labels = test["label"].to_numpy()
    table = pa.table(
        {"row_id": test["row_id"], "label": test["label"], "probs": probs_column(probs)}
    )
    draft.write(TEST_PREDICTIONS, table)
    draft.metrics.update(
        accuracy=accuracy(probs, labels),
        accuracy_of_mean_log_probs=accuracy(softmax(answers.logits_of_means), labels),
        **answers.counts,
    )


def sharded(step: Step, inputs: Mapping[str, Artifact], context: Context) -> Sharded:
    """The test rows through the model, which is not loaded yet."""
    rows = Rows(inputs["prepare"])
    return sharded_likelihoods(step, step.config_as(FeaturesConfig), rows, context)


def sharded_likelihoods(
    step: Step, config: FeaturesConfig, rows: Rows, context: Context
) -> Sharded:
    """The test rows of a data set through the step's model."""
    from w2s_ray.models.tokenizer import load_tokenizer

    assert step.model is not None
    return Sharded(
        rows=rows,
        splits=("test",),
        tokenizer=load_tokenizer(step.model),
        max_length_tokens=config.max_length_tokens,
        rendering=config.rendering,
        load=partial(_load, step.model, config.precision, step.execution.inference_gpus),
        context=context,
    )


def _load(spec: ModelSpec, precision: str, gpus: int, shards: Sharded) -> Loaded:
    from w2s_ray.models.language_model import answer_log_probs, load_language_model

    model = load_language_model(spec, precision, gpus)

    def sums(tokens: Tokens, progress: Callable[[int], None]) -> NDArray[np.float32]:
        return answer_log_probs(model, tokens, progress=progress)

    return Loaded(sums, np.array([model.backbone.shares_prompts]))


class Likelihoods(NamedTuple):
    """What a model finds of the test rows.

    Attributes:
        logits: (n, 2) float64, of sums of log-probabilities over tokens.
        logits_of_means: (n, 2) float64, of means over tokens.
        counts: what was computed, cut and identical.
    """

    logits: NDArray[np.float64]
    logits_of_means: NDArray[np.float64]
    counts: dict[str, int]


def likelihoods(shards: Sharded) -> Likelihoods:
    """Runs the model on the test rows, as far as their results are not kept."""
    logits: list[NDArray[np.float64]] = []
    of_means: list[NDArray[np.float64]] = []
    computed = truncated = identical = 0
    for shard in shards.of("test"):
        tokens, values = shard.tokens, shard.values
        counted = tokens.segments[:, 1:] - (tokens.segments[:, :1] == 0)
        logits.append(_margins(values))
        of_means.append(_margins(values / np.maximum(1, counted)))
        computed += len(tokens.ids)
        truncated += tokens.truncated
        identical += int(tokens.identical.sum())
    counts = {
        "tokens": computed,
        "shares_prompts": bool(shards.facts[0]),
        "truncated_test_rows": truncated,
        "identical_test_rows": identical,
    }
    return Likelihoods(np.concatenate(logits), np.concatenate(of_means), counts)


def _margins(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 2) logits (0, value of A − value of B), from the values of both answers."""
    margin = values[:, 0].astype(np.float64) - values[:, 1]
    return np.stack([np.zeros_like(margin), margin], axis=1)
