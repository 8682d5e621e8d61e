"""``label``: the weak model's class probabilities for the rows that the students learn from.

Where the weak model is calibrated, they are softmax(logits / T), with the one T that is likeliest
on ground-truth rows that the model did not train on.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.data.labels import labels_table
from w2s_ray.data.tokens import Tokens
from w2s_ray.finite import check_rows
from w2s_ray.objectives.calibration import held_out
from w2s_ray.order import hashes
from w2s_ray.plan.configs import LabelConfig, Training
from w2s_ray.plan.step import Step
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.statistics.recalibration import best_sharpness
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.features import Features
from w2s_ray.steps.metrics import accuracy, softmax
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.shards import Loaded, Sharded
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import SOFT_LABELS

HELD_OUT = "held-out"  # name of the kept logits of the rows that calibrate
HOTTEST = 20.0
"""T is in [1/20, 20]; a model that is never wrong, or no better than chance, has no best one."""


class _Logits(NamedTuple):
    """(n, K) float32 logits of a weak model for the rows of the split ``weak``, and for those that
    calibrate it; None: it is not calibrated."""

    weak: NDArray[np.float32]
    held_out: NDArray[np.float32] | None


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``soft_labels.parquet``: row_id, probs (K float32)."""
    data, weak = Rows(inputs["prepare"]), inputs["weak"]
    rows = data.labels("weak")
    held = _held_out(data.labels("ground_truth")) if _calibrates(step) else None
    if "features" in inputs:
        logits = _head_logits(weak, Features(inputs["features"]), rows, held)
    else:
        shards = sharded(step, inputs, context)
        draft.metrics.update(shards.spread())
        logits = _Logits(shards.values("weak"), None if held is None else shards.other(HELD_OUT))
    row_ids = rows["row_id"].to_pylist()
    check_rows(logits.weak, "the weak model's logits", row_ids)
    temperature = 1.0
    if held is not None:
        assert logits.held_out is not None
        check_rows(logits.held_out, "the weak model's logits", held["row_id"].to_pylist())
        temperature = fitted_temperature(logits.held_out, held["label"].to_numpy())
        draft.metrics.update(calibration_temperature=temperature, calibration_rows=held.num_rows)
    probs = softmax(logits.weak if held is None else logits.weak.astype(np.float64) / temperature)
    draft.write(SOFT_LABELS, labels_table(rows["row_id"], probs))
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


def fitted_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The T in [1/20, 20] under which softmax(logits / T) is likeliest.

    The likelihood is convex in 1/T, so the best T within the interval is the nearest to the best.

    Args:
        logits: (n, K).
        labels: (n,) true classes.
    """
    sharpness = best_sharpness(logits.astype(np.float64), labels)
    return float(1.0 / np.clip(sharpness, 1.0 / HOTTEST, HOTTEST))


def _head_logits(
    weak: Artifact, features: Features, rows: pa.Table, held: pa.Table | None
) -> _Logits:
    """Logits of a head on stored features."""
    from w2s_ray.training.heads import HEAD, heads_logits

    head = [weak.tensors(HEAD)]
    return _Logits(
        heads_logits(head, features.of("weak", rows))[0],
        None if held is None else heads_logits(head, features.of("ground_truth", held))[0],
    )


def sharded(step: Step, inputs: Mapping[str, Artifact], context: Context) -> Sharded:
    """The rows to label, and those that calibrate, through a trained model, not loaded yet."""
    from w2s_ray.models.tokenizer import load_tokenizer  # transformers, which heads need not

    data, weak = Rows(inputs["prepare"]), inputs["weak"]
    training = Training.from_json(weak.record["config"]["training"])
    assert step.model is not None
    return Sharded(
        rows=data,
        splits=("weak",),
        tokenizer=load_tokenizer(step.model),
        max_length_tokens=training.max_length_tokens,
        rendering=training.rendering,
        load=partial(load_scorer, step.model, training, weak, step.execution.inference_gpus),
        context=context,
        others={HELD_OUT: _held_out(data["ground_truth"])} if _calibrates(step) else {},
    )


def load_scorer(
    model: ModelSpec, training: Training, trained: Artifact, gpus: int, shards: Sharded
) -> Loaded:
    """A trained model, which gives (n, K) float32 logits: its own, or its implicit rewards'.

    Args:
        model: the weights before training.
        trained: has the weights.
        gpus: of this machine, over which the model is split.
    """
    if trained.record["kind"] == "reward":
        from w2s_ray.steps.reward import reward_logits

        beta, weights = trained.record["config"]["beta"], trained.file(WEIGHTS)
        return Loaded(reward_logits(model, training, beta, weights))
    from w2s_ray.models.inference import scorer_logits
    from w2s_ray.training.fit import trained_scorer

    shape = shards.rows.num_classes, shards.rows.per_row
    scorer, _ = trained_scorer(model, training, trained.file(WEIGHTS).parent, shape, gpus)

    def logits(tokens: Tokens, progress: Callable[[int], None]) -> NDArray[np.float32]:
        return scorer_logits(scorer, tokens, progress=progress)

    return Loaded(logits)


def _calibrates(step: Step) -> bool:
    return step.config_as(LabelConfig).calibrate == "temperature"


def _held_out(truth: pa.Table) -> pa.Table:
    """The rows that the weak model did not train on, of those with true labels."""
    return truth.take(held_out(hashes(truth["row_id"].to_pylist(), "calibration")))
