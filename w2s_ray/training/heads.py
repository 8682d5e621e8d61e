"""Last-layer training: linear heads on stored, standardised features.

No learning rate suits a head at zero on raw features, whose scales differ by orders of magnitude.
So the features are standardised by the training rows' statistics, and the scaling is folded back
into the stored head, which then reads raw features. Of a pair only the difference A − B is read, in
which the mean cancels.

All heads on the same features are fitted by one call (``batched_heads``, ``solvers``); a single
head is a group of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.contents import Content, Tensors
from w2s_ray.finite import rows_not_finite
from w2s_ray.half_logits import relative
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.batched_heads import train_batched
from w2s_ray.training.folded_heads import Folded, fold, folded_logits
from w2s_ray.training.head_evaluations import Snapshots
from w2s_ray.training.head_job import HeadJob, Inputs, TrainedHead, steps_of
from w2s_ray.training.loop import Curve
from w2s_ray.training.outputs import outputs, training_metrics
from w2s_ray.training.progress import Progress, Throttle
from w2s_ray.training.solvers import solve
from w2s_ray.training.validation import Evaluated

__all__ = [
    "FittedHead",
    "HeadData",
    "HeadJob",
    "fit_heads",
    "head_contents",
    "heads_logits",
]

HEAD = "head.safetensors"


@dataclass(frozen=True)
class HeadData:
    """The rows and features that all heads of a group share.

    Attributes:
        row_ids: n training rows.
        features: (n, m, H) float32, in the order of ``row_ids``.
        test: t rows with columns row_id, label.
        test_features: (t, m, H) float32, in the order of ``test``.
        num_classes: K; 2 where m is 2.
        validation_features: (v, m, H) float32, in the order of the jobs' ``held_out``; None: no job
            has any.
        also_scored: (u, m, H) float32 of other rows that the heads score; None: there are none.
    """

    row_ids: list[str]
    features: NDArray[np.float32]
    test: pa.Table
    test_features: NDArray[np.float32]
    num_classes: int
    validation_features: NDArray[np.float32] | None = None
    also_scored: NDArray[np.float32] | None = None

    @property
    def per_row(self) -> int:
        """Texts of a row, m: 2 for pairs, 1 for classification."""
        return int(self.features.shape[1])


@dataclass(frozen=True)
class FittedHead:
    """A trained head that reads raw features.

    Attributes:
        state: head.weight and, except for pairs, head.bias, float32.
        test_logits: (t, K) float32.
        curve: one entry per optimizer step, or per iteration of a solver. ``seconds`` is the
            head's even share of the time of the heads trained with it.
        metrics: of the training, for the step's record.
        evaluated: what was evaluated during the training; None: nothing.
        other_logits: (u, K) float16 of ``HeadData.also_scored``, as of ``relative``; or None.
    """

    state: dict[str, Tensor]
    test_logits: NDArray[np.float32]
    curve: Curve
    metrics: dict[str, Any]
    evaluated: Evaluated | None = None
    other_logits: NDArray[np.float16] | None = None


def fit_heads(
    data: HeadData, jobs: Sequence[HeadJob], *, progress: Progress = lambda numbers: None
) -> list[FittedHead | Exception]:
    """Trains every job as if it were alone; one entry per job, in order.

    A head that cannot be fitted does not affect the others: its entry is a FloatingPointError,
    which names the step, if it diverges, and a ValueError if its objective does not allow these
    labels or this solver.
    """
    features = torch.from_numpy(data.features)
    mean, scale = standardisation(features)
    if error := _not_finite(data, mean, scale):
        return [error] * len(jobs)
    inputs = _inputs(data, (features - mean) / scale)
    refusals = {
        objective: _refusal(objective, data.num_classes)
        for objective in {job.objective for job in jobs}
    }
    entries: list[TrainedHead | Exception | None] = [refusals[job.objective] for job in jobs]
    batched = [i for i, job in enumerate(jobs) if entries[i] is None and job.solver == "sgd"]
    solved = [i for i, job in enumerate(jobs) if entries[i] is None and job.solver != "sgd"]
    report = _Report(sum(steps_of(jobs[i], inputs) for i in batched) + len(solved), progress)
    trained = train_batched(inputs, [jobs[i] for i in batched], report)
    for index, result in zip(batched, trained, strict=True):
        entries[index] = result
    double = inputs.rows.double() if solved else inputs.rows
    for index in solved:
        try:
            entries[index] = solve(double, jobs[index], inputs.outputs)
        except Exception as error:  # of this head alone
            entries[index] = error
        report(1, torch.zeros(1))
    return _finish(data, jobs, entries, mean, scale)


def _not_finite(data: HeadData, mean: Tensor, scale: Tensor) -> FloatingPointError | None:
    """Why no head can read these features; one that is not finite shows in their statistics."""
    if mean.isfinite().all() and scale.isfinite().all():
        return None
    problem = rows_not_finite(data.features, "the features", data.row_ids)
    return FloatingPointError(problem or "the features are too large: their mean is beyond float32")


def _inputs(data: HeadData, standardised: Tensor) -> Inputs:
    if data.per_row == 2:
        rows, outputs = standardised[:, 0] - standardised[:, 1], 1
    else:
        ones = torch.ones(len(standardised), 1)
        rows, outputs = torch.cat([standardised[:, 0], ones], dim=1), data.num_classes
    return Inputs(data.row_ids, rows, data.num_classes, outputs)


def _refusal(objective: Objective, classes: int) -> ValueError | None:
    """Why the objective does not allow so many classes, e.g. a label clip of 1/K or more."""
    try:
        objective(torch.zeros(1, classes), torch.full((1, classes), 1.0 / classes))
    except ValueError as error:
        return error
    return None


class _Report:
    """Reports steps of all heads and their mean loss to ``progress``, a few times a second."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self._throttle = Throttle()

    def __call__(self, steps: int, losses: Tensor) -> None:
        self._done += steps
        if self._done < self._total and not self._throttle.due():
            return
        self._progress(
            {
                "step": self._done,
                "steps": self._total,
                "loss": float(losses[losses.isfinite()].mean()),
                "tokens_per_second": 0.0,
            }
        )


def _finish(
    data: HeadData,
    jobs: Sequence[HeadJob],
    entries: Sequence[TrainedHead | Exception | None],
    mean: Tensor,
    scale: Tensor,
) -> list[FittedHead | Exception]:
    """Folds the scaling into the weights of all heads, scores the test rows by them, and the
    validation rows at every evaluated step."""
    fitted = [entry for entry in entries if isinstance(entry, TrainedHead)]
    if not fitted:
        return [entry for entry in entries if isinstance(entry, Exception)]
    folded = fold(torch.stack([entry.weights for entry in fitted]), mean, scale, data.per_row)
    states = [{"head.weight": weight} for weight in folded.weight]
    if folded.bias is not None:
        for state, bias in zip(states, folded.bias, strict=True):
            state["head.bias"] = bias
    logits = folded_logits(folded, data.test_features)
    evaluated: list[Evaluated | FloatingPointError | None] = [None] * len(fitted)
    if data.validation_features is not None:
        snapshots = Snapshots(mean, scale, data.validation_features, data.test_features)
        trained = [
            job for job, entry in zip(jobs, entries, strict=True) if isinstance(entry, TrainedHead)
        ]
        evaluated = snapshots.evaluated(trained, fitted)
    others = None
    if data.also_scored is not None:
        others = relative(folded_logits(folded, data.also_scored))
    is_sound = all(np.isfinite(each).all() for each in (logits, others) if each is not None)
    results: list[FittedHead | Exception] = []
    for index, (state, entry) in enumerate(zip(states, fitted, strict=True)):
        scored = evaluated[index]
        other = None if others is None else others[index]
        if isinstance(scored, FloatingPointError):
            results.append(scored)
        elif not is_sound and (problem := _scores_not_finite(data, logits[index], other)):
            results.append(FloatingPointError(problem))
        else:
            metrics = {**training_metrics(entry.curve), **entry.facts}
            results.append(FittedHead(state, logits[index], entry.curve, metrics, scored, other))
    heads = iter(results)
    return [entry if isinstance(entry, Exception) else next(heads) for entry in entries]


def _scores_not_finite(
    data: HeadData, logits: NDArray[np.float32], others: NDArray[np.float16] | None
) -> str:
    """Why a head's scores cannot be stored; "" where they can."""
    row_ids = map(str, data.test["row_id"])
    if problem := rows_not_finite(logits, "the head's logits", row_ids):
        return problem
    return "" if others is None else rows_not_finite(others, "the head's logits of trained rows")


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (H,) over all texts of the rows; 1 for a constant feature."""
    flat = features.flatten(0, 1)
    scale = flat.std(dim=0, correction=0)
    return flat.mean(dim=0), torch.where(scale < 1e-6, 1.0, scale)


def head_contents(fitted: FittedHead, test: pa.Table) -> Mapping[str, Content]:
    """``head.safetensors``, ``test.parquet`` and ``curve.parquet``, and ``evaluated_contents``
    where the head was evaluated."""
    state = {name: tensor.numpy() for name, tensor in fitted.state.items()}
    return {
        HEAD: state,
        **outputs(test, fitted.test_logits, fitted.curve, fitted.evaluated),
    }


def heads_logits(states: Sequence[Tensors], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(J, n, K) float32 logits of J stored heads on raw features (n, m, H), in one product.

    A head's logits do not depend on the others.

    Args:
        states: what ``head.safetensors`` holds of each head.
    """
    weight = torch.from_numpy(np.stack([state["head.weight"] for state in states]))
    bias = None
    if "head.bias" in states[0]:
        bias = torch.from_numpy(np.stack([state["head.bias"] for state in states]))
    logits: NDArray[np.float32] = folded_logits(Folded(weight, bias), features)
    return logits
