"""``predict``: the predictions that a trained model makes of a further test set.

Heads read the stored features of the set, all of them in one product. Other models are made again
from the weights that their training has kept. An ensemble combines what its members predict, and a
baseline is fitted again.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.contents import Tensors
from w2s_ray.data.labels import probs_column
from w2s_ray.objectives.ensembles import combined
from w2s_ray.plan.configs import BaselineConfig, FeaturesConfig, Training
from w2s_ray.plan.step import Step
from w2s_ray.steps.baseline import baseline_probs
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.evaluate import Predictions
from w2s_ray.steps.features import Features
from w2s_ray.steps.label import load_scorer
from w2s_ray.steps.metrics import softmax
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.shards import Sharded
from w2s_ray.steps.untrained import likelihoods, sharded_likelihoods
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import TEST_PREDICTIONS


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``test.parquet``: row_id, label, probs."""
    if "features" in inputs:
        by_key = {key: inputs[role] for role, key in step.inputs.items()}
        (write,) = run_together([step], by_key.__getitem__, context)
        if isinstance(write, Exception):
            raise write
        write(draft)
        return
    rows = Rows(inputs["test_set"])
    if step.model is None:
        of_kind = {"ensemble": _of_ensemble, "baseline": _of_baseline}
        probs = of_kind[inputs["model"].record["kind"]](step, rows, inputs)
        _write_table(rows["test"], probs_column(probs), draft)
        return
    shards = sharded(step, inputs, context)
    draft.metrics.update(shards.spread())
    if _is_untrained(inputs["model"]):
        probs = softmax(likelihoods(shards).logits)
        _write_table(rows["test"], probs_column(probs), draft)
    else:
        _write(rows["test"], shards.values("test"), draft)


def run_together(
    steps: Sequence[Step], artifacts: Artifacts, context: Context
) -> list[Write | Exception]:
    """A writer for each of the heads, which share the features of one test set."""
    from w2s_ray.training.heads import HEAD, heads_logits

    rows = Rows(artifacts(steps[0].inputs["test_set"]))["test"]
    features = Features(artifacts(steps[0].inputs["features"])).of("test", rows)
    heads: list[Tensors] = []
    outcomes: list[Write | Exception | None] = []
    for step in steps:
        try:
            heads.append(artifacts(step.inputs["model"]).tensors(HEAD))
            outcomes.append(None)
        except Exception as error:  # of this head alone
            outcomes.append(error)
    logits = iter(heads_logits(heads, features) if heads else ())
    return [
        partial(_write, rows, next(logits)) if outcome is None else outcome for outcome in outcomes
    ]


def _of_ensemble(step: Step, rows: Rows, inputs: Mapping[str, Artifact]) -> NDArray[np.float64]:
    """(n, K) probabilities of an ensemble, its members weighted as on its own rows."""
    record = inputs["model"].record
    row_ids = rows.labels("test")["row_id"]
    roles = [role for role in step.inputs if role.startswith("weak_")]
    probs = np.stack([Predictions.read(inputs[role]).ordered_by(row_ids).probs for role in roles])
    weight_of = {member["key"]: member["weight"] for member in record["metrics"]["members"]}
    weights = np.array([weight_of[record["inputs"][role]] for role in roles])
    return combined(probs, record["config"]["combine"], weights)


def _of_baseline(step: Step, rows: Rows, inputs: Mapping[str, Artifact]) -> NDArray[np.float64]:
    """(n, K) probabilities of a baseline, which is fitted again: it stores nothing."""
    config = BaselineConfig(**inputs["model"].record["config"])
    return baseline_probs(config, Rows(inputs["prepare"]), inputs["label"], rows["test"])[1]


def sharded(step: Step, inputs: Mapping[str, Artifact], context: Context) -> Sharded:
    """The test rows through a model, not loaded yet: one that was trained, or before any training.

    Raises:
        FileNotFoundError: the weights of the trained model were not kept.
    """
    from w2s_ray.models.tokenizer import load_tokenizer  # transformers, which heads need not

    model, rows = inputs["model"], Rows(inputs["test_set"])
    assert step.model is not None
    if _is_untrained(model):
        config = FeaturesConfig.from_json(model.record["config"])
        return sharded_likelihoods(step, config, rows, context)
    if not model.has(WEIGHTS):
        raise FileNotFoundError(not_kept(model.folder))
    training = Training.from_json(model.record["config"]["training"])
    return Sharded(
        rows=rows,
        splits=("test",),
        tokenizer=load_tokenizer(step.model),
        max_length_tokens=training.max_length_tokens,
        rendering=training.rendering,
        load=partial(load_scorer, step.model, training, model, step.execution.inference_gpus),
        context=context,
    )


def _is_untrained(model: Artifact) -> bool:
    """Whether its artifact holds no weights, since it was never trained."""
    return bool(model.record["kind"] == "untrained")


def not_kept(folder: Path) -> str:
    """What to do about a model that was trained before its data set had further test sets."""
    return (
        f"the weights of {folder.parent.name}/{folder.name} were not kept, so it cannot score "
        "another test set; delete that folder of the store to train it again"
    )


def _write(rows: pa.Table, logits: NDArray[np.float32], draft: Draft) -> None:
    from w2s_ray.training.outputs import predictions

    draft.write(TEST_PREDICTIONS, predictions(rows, logits))
    draft.metrics["rows"] = rows.num_rows


def _write_table(rows: pa.Table, probs: pa.Array, draft: Draft) -> None:
    table = pa.table({"row_id": rows["row_id"], "label": rows["label"], "probs": probs})
    draft.write(TEST_PREDICTIONS, table)
    draft.metrics["rows"] = rows.num_rows
