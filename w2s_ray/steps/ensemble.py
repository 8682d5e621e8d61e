"""``ensemble``: several weak models as one; it stands for a weak model and its labels."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.labels import labels_table, probs_column, soft_labels_of
from w2s_ray.objectives.ensembles import combined, members
from w2s_ray.plan.configs import EnsembleConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Context
from w2s_ray.steps.evaluate import Predictions
from w2s_ray.steps.metrics import accuracy
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import SOFT_LABELS, TEST_PREDICTIONS


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``soft_labels.parquet`` as ``label`` does, and ``test.parquet`` as ``weak`` does.

    The weights that are learned from the labels are used for the test rows too. The metrics hold
    each member's key and weight, and its estimated accuracy if that decided the weight.

    Raises:
        ValueError: the members differ in their rows or classes.
    """
    combine = step.config_as(EnsembleConfig).combine
    rows = Rows(inputs["prepare"]).labels("weak")
    roles = [role for role in step.inputs if role.startswith("weak_")]
    artifacts = [inputs[f"label_{role.removeprefix('weak_')}"] for role in roles]
    row_ids = rows["row_id"].to_pylist()
    labels = _stacked([soft_labels_of(a.table(SOFT_LABELS), row_ids) for a in artifacts])
    predictions = [Predictions.read(inputs[role]) for role in roles]
    first = predictions[0]
    test = _stacked([each.ordered_by(first.row_ids).probs for each in predictions])
    weights, accuracies = members(labels, combine)
    probs = combined(labels, combine, weights)
    draft.write(SOFT_LABELS, labels_table(rows["row_id"], probs))
    column = probs_column(combined(test, combine, weights))
    table = pa.table({"row_id": first.row_ids, "label": first.labels, "probs": column})
    draft.write(TEST_PREDICTIONS, table)
    draft.metrics.update(
        rows=rows.num_rows,
        accuracy=accuracy(probs, rows["label"].to_numpy()),
        mean_confidence=float(np.abs(probs - 1 / probs.shape[1]).max(axis=1).mean()),
        members=_described([step.inputs[role] for role in roles], weights, accuracies),
    )


def _stacked(tables: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """(m, n, K) from m tables of (n, K).

    Raises:
        ValueError: their shapes differ.
    """
    shapes = sorted({table.shape for table in tables})
    if len(shapes) > 1:
        raise ValueError(f"the members of an ensemble differ in rows and classes: {shapes}")
    return np.stack(tables)


def _described(
    keys: Sequence[str], weights: NDArray[np.float64], accuracies: NDArray[np.float64] | None
) -> list[dict[str, object]]:
    described: list[dict[str, object]] = [
        {"key": key, "weight": weight} for key, weight in zip(keys, weights.tolist(), strict=True)
    ]
    if accuracies is not None:
        for member, estimated in zip(described, accuracies.tolist(), strict=True):
            member["estimated_accuracy"] = estimated
    return described
