"""``evaluate``: a model's scores on the test rows, and a student's distance to its teacher."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.labels import positions
from w2s_ray.finite import check_rows
from w2s_ray.plan.configs import EvaluateConfig
from w2s_ray.plan.step import Step
from w2s_ray.statistics.recalibration import halves
from w2s_ray.steps import error_metrics, metrics
from w2s_ray.steps.chosen_step import ChosenStep, chosen_step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.error_metrics import Deciles, Errors, deciles
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import STEP_LOGITS, TEST_PREDICTIONS
from w2s_ray.store.step_logits import step_probs
from w2s_ray.training.progress import Throttle


@dataclass(frozen=True)
class Predictions:
    """A model's predictions of the test rows.

    Attributes:
        row_ids: n of them.
        labels: (n,) true classes.
        probs: (n, K) probabilities, in Fortran order.
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
        table = artifact.table(TEST_PREDICTIONS)
        if chosen is not None and not chosen.is_last:
            probs = np.asfortranarray(step_probs(artifact.array(STEP_LOGITS), chosen.position))
            check_rows(probs, f"the predictions of {artifact.folder}", map(str, table["row_id"]))
            return cls(table["row_id"], table["label"].to_numpy(), probs, chosen)
        flat = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        probs = np.asfortranarray(flat.astype(np.float64).reshape(table.num_rows, -1))
        check_rows(probs, f"the predictions of {artifact.folder}", map(str, table["row_id"]))
        return cls(table["row_id"], table["label"].to_numpy(), probs, chosen)

    @cached_property
    def halves(self) -> NDArray[np.bool_]:
        """(n,) which of two halves a row belongs to, drawn from its id."""
        return halves(self.row_ids.to_pylist())

    @cached_property
    def deciles(self) -> Deciles:
        return deciles(self.probs)

    def ordered_by(self, row_ids: pa.ChunkedArray) -> "Predictions":
        """The same in the order of ``row_ids``."""
        if row_ids.equals(self.row_ids):  # nearly always: both were written from one table
            return self
        order = positions(row_ids.to_pylist(), self.row_ids.to_pylist())
        return replace(
            self,
            row_ids=row_ids,
            labels=self.labels[order],
            probs=np.asfortranarray(self.probs[order]),
        )


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes no file: the numbers are the record's metrics."""
    by_key = {key: inputs[role] for role, key in step.inputs.items()}
    read = _metrics(step, by_key.__getitem__, lambda key: Predictions.read(by_key[key]))
    draft.metrics.update(read)


def run_together(
    steps: Sequence[Step], artifacts: Artifacts, context: Context
) -> list[Write | Exception]:
    """A writer for each step; a weak model shared by many students is read once.

    Models of one bundle are scored one after the other, so that it is read from front to back.
    """
    weak = cache(lambda key: Predictions.read(artifacts(key)))
    throttle = Throttle()
    outcomes: dict[str, Write | Exception] = {}
    for step in sorted(steps, key=partial(_bundle_of, artifacts)):
        try:
            outcomes[step.key] = partial(_write, _metrics(step, artifacts, weak))
        except Exception as error:  # of this step's models
            outcomes[step.key] = error
        if throttle.due():
            context.progress({"step": len(outcomes), "steps": len(steps), "unit": "scored"})
    return [outcomes[step.key] for step in steps]


def _bundle_of(artifacts: Artifacts, step: Step) -> str:
    """The bundle that has the predictions of a step's model; "": none, or it cannot be read."""
    with suppress(Exception):  # which is said when the model is read
        return str(artifacts(step.inputs["model"]).record.get("bundle", ""))
    return ""


def _write(metrics: Mapping[str, Any], draft: Draft) -> None:
    draft.metrics.update(metrics)


def _metrics(
    step: Step, artifacts: Artifacts, weak: Callable[[str], Predictions]
) -> dict[str, Any]:
    """The numbers for the record."""
    config = step.config_as(EvaluateConfig)
    clip = config.label_clip
    model = Predictions.read(artifacts(step.inputs["model"]), config.step_by)
    chosen = {} if model.step is None else model.step.metrics
    if "weak" not in step.inputs:
        return chosen | scores(model, model.halves, clip)
    # What depends on the rows or the teacher alone serves all of its students.
    teacher = weak(step.inputs["weak"]).ordered_by(model.row_ids)
    return chosen | scores(model, teacher.halves, clip) | against_weak(model, teacher, clip)


def scores(model: Predictions, halves: NDArray[np.bool_], clip: float) -> dict[str, Any]:
    """A model's own scores.

    Args:
        halves: (n,) as ``Predictions.halves``.
        clip: γ, of the probabilities in cross-entropies.
    """
    labels, probs = model.labels, model.probs
    return {
        "rows": len(labels),
        "accuracy": metrics.accuracy(probs, labels),
        "auroc": metrics.auroc(probs, labels),
        "cross_entropy": metrics.cross_entropy(probs, labels, clip),
        "recalibrated_cross_entropy": metrics.recalibrated_cross_entropy(
            probs, labels, halves, clip
        ),
        "brier": metrics.brier(probs, labels),
        "calibration_error": metrics.calibration_error(probs, labels),
        "entropy": metrics.entropy(probs),
        "mean_confidence": metrics.confidence(probs),
    }


def against_weak(model: Predictions, teacher: Predictions, clip: float) -> dict[str, Any]:
    """What a student has, and has not, of its teacher.

    Args:
        teacher: predictions of the same rows, in the same order.
        clip: γ, of the probabilities in misfits.
    """
    probs, weak = model.probs, teacher.probs
    errors = Errors.of(probs, weak, model.labels)
    return {
        "agreement_with_weak": error_metrics.agreement(probs, weak),
        "misfit_forward": metrics.divergence(weak, probs, clip),
        "misfit_reverse": metrics.divergence(probs, weak, clip),
        **errors.rates(),
        "blind_spots": error_metrics.blind_spots(probs, weak, errors),
        "error_phi": errors.phi(),
        "error_kappa": errors.kappa(),
        "by_weak_confidence": error_metrics.by_weak_confidence(errors, teacher.deciles),
    }
