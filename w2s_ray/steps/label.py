"""``label``: the weak model's class probabilities for the rows that the students learn from."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.labels import write_soft_labels
from w2s_ray.data.tokens import Tokens
from w2s_ray.plan.configs import Training
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.features import Features
from w2s_ray.steps.metrics import accuracy, softmax
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.shards import Sharded
from w2s_ray.store.artifacts import Artifact, Draft
from w2s_ray.store.names import SOFT_LABELS


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``soft_labels.parquet``: row_id, probs (K float32)."""
    data, weak = Rows(inputs["prepare"]), inputs["weak"]
    rows = data.labels("weak")
    if "features" in inputs:
        from w2s_ray.training.heads import head_logits

        logits = head_logits(weak.folder, Features(inputs["features"]).of("weak", rows))
    else:
        logits = _model_logits(step, data, weak, context)
    probs = softmax(logits)
    write_soft_labels(draft.folder / SOFT_LABELS, rows["row_id"], probs)
    draft.metrics.update(
        rows=rows.num_rows,
        accuracy=accuracy(probs, rows["label"].to_numpy()),
        mean_confidence=float(np.abs(probs - 1 / probs.shape[1]).max(axis=1).mean()),
    )


def run_together(
    steps: Sequence[Step], artifacts: Artifacts, context: Context
) -> list[Write | Exception]:
    """A writer for each step."""
    return [partial(_write, step, artifacts, context) for step in steps]


def _write(step: Step, artifacts: Artifacts, context: Context, draft: Draft) -> None:
    run(step, {role: artifacts(key) for role, key in step.inputs.items()}, draft, context)


def _model_logits(step: Step, data: Rows, weak: Artifact, context: Context) -> NDArray[np.float32]:
    """(n, K) float32 logits of a trained model for the rows of the split ``weak``."""
    from w2s_ray.models.inference import scorer_logits  # loads transformers, which heads need not
    from w2s_ray.training.fit import trained_scorer

    training = Training.from_json(weak.record["config"]["training"])
    assert step.model is not None
    shape = data.num_classes, data.per_row
    scorer, tokenizer = trained_scorer(step.model, training, weak.folder, shape)

    def logits(tokens: Tokens, progress: Callable[[int], None]) -> NDArray[np.float32]:
        return scorer_logits(scorer, tokens, progress=progress)

    length, rendering = training.max_length_tokens, training.rendering
    sharded = Sharded(data, ("weak",), tokenizer, length, rendering, logits, context)
    return np.concatenate([values for _, values in sharded.of("weak")])
