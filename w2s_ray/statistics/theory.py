"""Statements of theory about gain and misfit, measured on the rows that a student learned from.

w is the label that the student saw, s the student's distribution, F* that of the ceiling on the
same rows; L(P, Q) is the mean of KL(P‖Q) in nats. F* must be in the student's class of predictors:
for a last layer another last layer on the same features, wherever it was trained. With true labels
or a model of another class as F* nothing follows, and a result is ``Outside`` (docs/theory.md).

* ``forward_identity``: L(w, F*) − L(s, F*) = L(w, s) for a logistic head at the minimum of
  L(w, s).
* ``reverse_slack``: L(F*, w) − L(F*, s) − L(s, w), which is ≥ 0 at the minimum of L(s, w) in a
  class that is convex in probability space. Logistic heads are not such a class.
* ``gain_over_misfit``: |gain|/√misfit beside its supremum, for any two models.

Letters: n rows, K classes.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, xlogy

from w2s_ray.statistics.decomposition import Array, Estimate, mean

Direction = Literal["forward", "reverse"]
Sign = Literal["positive", "negative", "undecided"]

IDENTITY_TOLERANCE = 1e-5
"""Nats by which an exact solver's student may miss the identity: its heads are float32."""
CONVEX_TOLERANCE = 1e-6
"""Nats by which the slack of a convex class may be below 0."""
LEAST_MISFIT = 1e-10
"""Nats below which a misfit is rounding, so that nothing is divided by it."""
ROUNDING_DEVIATIONS = 4.0
"""Standard deviations of the rounding of logits that the identity's tolerance allows for."""

OUTSIDE = "outside the theorem"


class Outside(NamedTuple):
    """No verdict: the theorem does not speak of this case.

    Attributes:
        reason: what is not as the theorem assumes.
    """

    reason: str

    @property
    def status(self) -> str:
        return OUTSIDE


class TrainingRows(NamedTuple):
    """Three models on the rows that the student learned from.

    Attributes:
        labels: (n, K) w, probabilities.
        student: (n, K) log s.
        ceiling: (n, K) log F*.
    """

    labels: Array
    student: Array
    ceiling: Array

    @classmethod
    def of_logits(
        cls,
        labels: NDArray[np.floating],
        student: NDArray[np.floating],
        ceiling: NDArray[np.floating],
    ) -> "TrainingRows":
        """From (n, K) label probabilities, and logits of both models."""
        return cls(_normalised(labels), _log_probabilities(student), _log_probabilities(ceiling))

    @classmethod
    def of_probabilities(
        cls,
        labels: NDArray[np.floating],
        student: NDArray[np.floating],
        ceiling: NDArray[np.floating],
    ) -> "TrainingRows":
        """From (n, K) probabilities of all three; a ceiling of 0 and 1 is hard labels."""
        with np.errstate(divide="ignore"):
            logs = np.log(_normalised(student)), np.log(_normalised(ceiling))
        return cls(_normalised(labels), *logs)

    @property
    def has_hard_ceiling(self) -> bool:
        """Whether F* is hard labels, which no head with finite weights gives."""
        return not np.isfinite(self.ceiling).all()


class Identity(NamedTuple):
    """Both sides of the identity of forward KL.

    Attributes:
        gain: L(w, F*) − L(s, F*): by how much less the student's distributions differ from the
            ceiling's than its labels do, in the risk with its arguments reversed.
        misfit: L(w, s).
        tolerance: up to which the two count as equal.
    """

    gain: float
    misfit: float
    tolerance: float

    @property
    def residual(self) -> float:
        return self.gain - self.misfit

    @property
    def status(self) -> Literal["holds", "fails"]:
        return "holds" if abs(self.residual) <= self.tolerance else "fails"


class Slack(NamedTuple):
    """The slack of Theorem 2 (Yao et al. 2025a), with an interval over rows.

    Attributes:
        gain: L(F*, w) − L(F*, s).
        misfit: L(s, w).
        estimate: of their difference; the student is taken as it is, so that the interval is of
            other rows for this student, not of another training.
        is_convex: whether the class of predictors is, and with it whether anything is expected.
        low, high: the 95 % interval.
    """

    gain: float
    misfit: float
    estimate: Estimate
    is_convex: bool
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.estimate.mean

    @property
    def sign(self) -> Sign:
        """Of the slack, as far as its interval resolves it."""
        if self.low <= 0.0 <= self.high:
            return "undecided"
        return "positive" if self.low > 0.0 else "negative"

    @property
    def status(self) -> Sign | Literal["holds", "fails"]:
        """For a convex class whether the theorem holds; for another the sign, no verdict."""
        if not self.is_convex:
            return self.sign
        return "holds" if self.value >= -CONVEX_TOLERANCE else "fails"


class GainOverMisfit(NamedTuple):
    """Lemma 1 (Yao et al. 2025a): a gain is at most in proportion to the root of a misfit.

    Attributes:
        gain: L(F*, w) − L(F*, s).
        misfit: L(w, s) or L(s, w).
        ratio: |gain|/√misfit; None where the misfit is 0, to ``LEAST_MISFIT``.
        bound: its supremum.
    """

    gain: float
    misfit: float
    ratio: float | None
    bound: float


def forward_identity(
    rows: TrainingRows, *, in_class: bool, rounding: float = 0.0
) -> Identity | Outside:
    """The identity for a student that minimises forward KL (or cross-entropy) on these rows.

    Labels are as the student saw them; forward KL clips nothing, and nothing is clipped here.

    Args:
        in_class: whether F* is a head on the student's features.
        rounding: standard deviation of the residual by rounded logits, as of ``logit_rounding``.
    """
    if outside := _outside(rows, in_class):
        return outside
    gain = _mean_kl_of(rows.labels, rows.ceiling) - _mean_kl_log(rows.student, rows.ceiling)
    tolerance = IDENTITY_TOLERANCE + ROUNDING_DEVIATIONS * rounding
    return Identity(gain, _mean_kl_of(rows.labels, rows.student), tolerance)


def reverse_slack(
    rows: TrainingRows,
    label_clip: float,
    *,
    in_class: bool,
    is_convex: bool = False,
    groups: NDArray[np.int64] | None = None,
) -> Slack | Outside:
    """The slack for a student that minimises reverse KL on these rows.

    Args:
        label_clip: γ; w is clipped to [γ, 1 − γ] as in the loss; s and F* are not. 0: w as given.
        in_class: whether F* is in the student's class.
        is_convex: whether that class holds every mixture of its predictors, as simplex weights over
            frozen predictors do; a logistic head does not.
        groups: (n,) index of each row's prompt, as of ``decomposition.group_indices``.
    """
    if outside := _outside(rows, in_class):
        return outside
    log_w = _clipped_log(rows.labels, label_clip)
    gains = _kl_log(rows.ceiling, log_w) - _kl_log(rows.ceiling, rows.student)
    misfits = _kl_log(rows.student, log_w)
    estimate = mean((gains - misfits)[None], groups)
    gain, misfit = float(gains.mean()), float(misfits.mean())
    return Slack(gain, misfit, estimate, is_convex, *estimate.interval())


def gain_over_misfit(rows: TrainingRows, label_clip: float, direction: Direction) -> GainOverMisfit:
    """The ratio of Lemma 1, with w and s clipped to [γ, 1 − γ] and renormalised.

    It is bounded for every F*, hard labels too, and needs no solver. F* is not clipped.

    Args:
        label_clip: γ, in (0, 1/K).
        direction: of the misfit: forward L(w, s), reverse L(s, w).
    """
    log_w = _clipped_log(rows.labels, label_clip)
    log_s = _clipped_log(np.exp(rows.student), label_clip)
    gain = float((np.exp(rows.ceiling) * (log_s - log_w)).sum(axis=1).mean())
    pair = (log_w, log_s) if direction == "forward" else (log_s, log_w)
    misfit = max(0.0, _mean_kl_log(*pair))
    ratio = abs(gain) / misfit**0.5 if misfit >= LEAST_MISFIT else None
    return GainOverMisfit(gain, misfit, ratio, largest_ratio(label_clip, rows.labels.shape[1]))


def largest_ratio(label_clip: float, classes: int = 2) -> float:
    """√(2 (1 − γ′)/γ′), the supremum of |gain|/√misfit in either direction.

    γ′ is the least probability that clipping leaves: γ for two classes, γ/(1 + (K − 2) γ) for K,
    since clipped probabilities of more classes add up to more than 1 before they are renormalised.
    """
    least = label_clip / (1.0 + (classes - 2) * label_clip)
    return float(np.sqrt(2.0 * (1.0 - least) / least))


def logit_rounding(
    rows: TrainingRows, student: NDArray[np.float16], ceiling: NDArray[np.float16]
) -> float:
    """Standard deviation of the identity's residual where logits were rounded to float16.

    To first order, with errors that are independent and uniform within half a unit of the last
    digit. A row's residual is Σ (w − s)(log s − log F*).

    Args:
        student, ceiling: (n, K) logits as stored, relative to the largest of a row, which is exact.
    """
    s = np.exp(rows.student)
    misses = rows.labels - s
    apart = rows.student - rows.ceiling
    by_student = misses - s * (apart - (s * apart).sum(axis=1, keepdims=True))
    errors = (by_student * _units(student)) ** 2 + (misses * _units(ceiling)) ** 2
    return float(np.sqrt(errors.sum() / 12.0) / len(errors))


def _units(logits: NDArray[np.float16]) -> Array:
    """Distance between neighbouring float16 numbers at each logit; 0 where it is exactly 0."""
    units = np.abs(np.spacing(logits.astype(np.float16))).astype(np.float64)
    return np.where(logits == 0, 0.0, units)


def _outside(rows: TrainingRows, in_class: bool) -> Outside | None:
    if rows.has_hard_ceiling:
        return Outside("F* is hard labels, which no head of the class gives")
    return None if in_class else Outside("F* is not in the student's class of predictors")


def _normalised(probs: NDArray[np.floating]) -> Array:
    wide = np.asarray(probs, dtype=np.float64)
    normalised: Array = wide / wide.sum(axis=1, keepdims=True)
    return normalised


def _log_probabilities(logits: NDArray[np.floating]) -> Array:
    logs: Array = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return logs


def _clipped_log(probs: Array, label_clip: float) -> Array:
    """Logarithms of the probabilities clipped to [γ, 1 − γ] and renormalised."""
    held = np.clip(probs, label_clip, 1.0 - label_clip)
    logs: Array = np.log(held / held.sum(axis=1, keepdims=True))
    return logs


def _mean_kl_of(probs: Array, log_q: Array) -> float:
    """L(P, Q) of probabilities, of which some may be 0."""
    return float((xlogy(probs, probs) - probs * log_q).sum(axis=1).mean())


def _mean_kl_log(log_p: Array, log_q: Array) -> float:
    return float(_kl_log(log_p, log_q).mean())


def _kl_log(log_p: Array, log_q: Array) -> Array:
    """(n,) KL(P‖Q) of finite logarithms."""
    divergences: Array = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return divergences
