"""``evaluate``: one model's scores on the test rows, and a student's distance to its teacher."""

from collections.abc import Mapping

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from w2s_ray.data.labels import positions
from w2s_ray.plan.graph import Step
from w2s_ray.steps import metrics
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Artifact, Draft


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes no file: the numbers are the record's metrics."""
    clip = step.config["label_clip"]
    row_ids, labels, probs = _predictions(inputs["model"])
    draft.metrics.update(
        rows=len(labels),
        accuracy=metrics.accuracy(probs, labels),
        auroc=metrics.auroc(probs, labels),
        cross_entropy=metrics.cross_entropy(probs, labels, clip),
        calibration_error=metrics.calibration_error(probs, labels),
    )
    if "weak" in inputs:
        weak_ids, _, weak = _predictions(inputs["weak"])
        weak = weak[positions(row_ids, weak_ids)]
        draft.metrics.update(
            agreement_with_weak=metrics.agreement(probs, weak),
            misfit_forward=metrics.divergence(weak, probs, clip),
            misfit_reverse=metrics.divergence(probs, weak, clip),
        )


def _predictions(
    artifact: Artifact,
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    table = pq.read_table(artifact.folder / "test.parquet")
    probs = np.stack(table["probs"].to_numpy())
    return table["row_id"].to_pylist(), table["label"].to_numpy(), probs
