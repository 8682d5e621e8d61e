"""``evaluate``: a model's scores on the test rows, and a student's distance to its teacher."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.labels import positions
from w2s_ray.data.tables import read_parquet
from w2s_ray.plan.configs import EvaluateConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps import metrics
from w2s_ray.steps.chosen_step import ChosenStep, chosen_step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.store.artifacts import Artifact, Draft
from w2s_ray.store.names import STEP_LOGITS, TEST_PREDICTIONS
from w2s_ray.store.step_logits import step_probs


@dataclass(frozen=True)
class Predictions:
    """A model's predictions of the test rows.

    Attributes:
        row_ids: n of them.
        labels: (n,) true classes.
        probs: (n, K) probabilities.
        step: the evaluated step that made them; None: nothing was evaluated in the training.
    """

    row_ids: pa.ChunkedArray
    labels: NDArray[np.int64]
    probs: NDArray[np.float64]
    step: ChosenStep | None = None

    @classmethod
    def read(cls, artifact: Artifact, step_by: str | None = None) -> "Predictions":
        """Those of the last step, or of the step that the rule ``step_by`` chooses."""
        chosen = chosen_step(artifact, step_by)
        table = read_parquet(artifact.folder / TEST_PREDICTIONS)
        if chosen is not None and not chosen.is_last:
            probs = step_probs(artifact.folder / STEP_LOGITS, chosen.position)
            return cls(table["row_id"], table["label"].to_numpy(), probs, chosen)
        flat = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        probs = flat.astype(np.float64).reshape(table.num_rows, -1)
        return cls(table["row_id"], table["label"].to_numpy(), probs, chosen)

    def ordered_by(self, row_ids: pa.ChunkedArray) -> NDArray[np.float64]:
        """(n, K) probabilities, in the order of ``row_ids``."""
        if row_ids.equals(self.row_ids):  # nearly always: both were written from one table
            return self.probs
        return self.probs[positions(row_ids.to_pylist(), self.row_ids.to_pylist())]


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes no file: the numbers are the record's metrics."""
    by_key = {key: inputs[role] for role, key in step.inputs.items()}
    _write(step, by_key.__getitem__, lambda key: Predictions.read(by_key[key]), draft)


def run_together(
    steps: Sequence[Step], artifacts: Artifacts, context: Context
) -> list[Write | Exception]:
    """A writer for each step; a weak model shared by many students is read once."""
    weak = cache(lambda key: Predictions.read(artifacts(key)))
    return [partial(_write, step, artifacts, weak) for step in steps]


def _write(
    step: Step, artifacts: Artifacts, weak: Callable[[str], Predictions], draft: Draft
) -> None:
    """Writes no file: the numbers are the record's metrics."""
    config = step.config_as(EvaluateConfig)
    clip = config.label_clip
    model = Predictions.read(artifacts(step.inputs["model"]), config.step_by)
    labels, probs = model.labels, model.probs
    draft.metrics.update(
        rows=len(labels),
        accuracy=metrics.accuracy(probs, labels),
        auroc=metrics.auroc(probs, labels),
        cross_entropy=metrics.cross_entropy(probs, labels, clip),
        calibration_error=metrics.calibration_error(probs, labels),
    )
    if model.step is not None:
        draft.metrics.update(model.step.metrics)
    if "weak" in step.inputs:
        teacher = weak(step.inputs["weak"]).ordered_by(model.row_ids)
        draft.metrics.update(
            agreement_with_weak=metrics.agreement(probs, teacher),
            misfit_forward=metrics.divergence(teacher, probs, clip),
            misfit_reverse=metrics.divergence(probs, teacher, clip),
        )
