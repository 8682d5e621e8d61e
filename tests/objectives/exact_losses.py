"""Every loss by its definition in docs/losses.md §1, in decimal arithmetic of 100 digits.

The gradient is the central difference of that value, so no formula of a derivative is used. With
steps of 1e-26 its error is about 1e-52 times the third derivative, and rounding adds less. Where a
loss has a kink, the difference is the mean of both slopes. Nothing here is shared with
``w2s_ray.objectives``, except which labels are clipped.
"""

import decimal
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from w2s_ray.objectives.names import DEFINITIONS

CONTEXT = decimal.Context(prec=100, Emin=-(10**9), Emax=10**9)
STEP = Decimal("1e-26")
CLIP = Decimal("1e-3")
TANGENT = Decimal(10) ** 12
"""Neyman χ² continues along a tangent where w/s is larger."""

Number = float | Decimal
Probs = tuple[Decimal, ...]


class Point(NamedTuple):
    """What a loss compares; all but ``s`` are constants of its gradient.

    Attributes:
        s: the student's probabilities.
        w: the label, clipped if the loss clips it everywhere.
        clipped: the clipped label.
        label: the label as given.
        fixed: the student's probabilities where the gradient is taken.
    """

    s: Probs
    w: Probs
    clipped: Probs
    label: Probs
    fixed: Probs


class Exact(NamedTuple):
    """A loss and its gradient by the logits."""

    value: Decimal
    gradient: Probs


def exact_loss(
    name: str, logits: Sequence[Number], label: Sequence[Number], parameters: Mapping[str, float]
) -> Exact:
    """One example's loss; binary floats and parameters count as the numbers they are."""
    with decimal.localcontext(CONTEXT):
        scores = tuple(map(Decimal, logits))
        given = tuple(map(Decimal, label))
        clipped = _clipped(given)
        used = clipped if DEFINITIONS[name].clips_label else given
        fixed = softmax(scores)
        settings = {key: Decimal(value) for key, value in parameters.items()}

        def at(moved: Probs) -> Decimal:
            return VALUES[name](Point(softmax(moved), used, clipped, given, fixed), **settings)

        gradient = []
        for index in range(len(scores)):
            above, below = (
                (*scores[:index], scores[index] + step, *scores[index + 1 :])
                for step in (STEP, -STEP)
            )
            gradient.append((at(above) - at(below)) / (2 * STEP))
        return Exact(at(scores), tuple(gradient))


@lru_cache(maxsize=10_000)
def softmax(scores: Probs) -> Probs:
    weights = [(score - max(scores)).exp() for score in scores]
    total = sum(weights, Decimal(0))
    return tuple(weight / total for weight in weights)


@lru_cache(maxsize=10_000)
def _clipped(label: Probs) -> Probs:
    inside = [min(max(w, CLIP), 1 - CLIP) for w in label]
    return tuple(w / sum(inside) for w in inside)


@lru_cache(maxsize=100_000)
def ln(x: Decimal) -> Decimal:
    return x.ln()


def _sum(terms: Sequence[Decimal]) -> Decimal:
    return sum(terms, Decimal(0))


def entropy(p: Probs, q: Probs) -> Decimal:
    """H(p, q); 0 log q is 0."""
    return -_sum([x * ln(y) for x, y in zip(p, q, strict=True) if x])


def kl(p: Probs, q: Probs) -> Decimal:
    """KL(p‖q)."""
    return entropy(p, q) - entropy(p, p)


def mixture(p: Probs, q: Probs, share: Decimal) -> Probs:
    return tuple(share * x + (1 - share) * y for x, y in zip(p, q, strict=True))


def _jensen_shannon(p: Point, b: Decimal) -> Decimal:
    m = mixture(p.w, p.s, b)
    return b * kl(p.w, m) + (1 - b) * kl(p.s, m)


def _alpha_divergence(p: Point, a: Decimal) -> Decimal:
    affinity = _sum([(a * ln(s) + (1 - a) * ln(w)).exp() for s, w in zip(p.s, p.w, strict=True)])
    return (affinity - 1) / (a * (a - 1))


def _neyman_chi2(p: Point) -> Decimal:
    """Σ s (u² - 2 u + 1) with u = w/s, where u² is u U (1 + log(u/U)) above U."""
    total = Decimal(0)
    for s, w in zip(p.s, p.w, strict=True):
        u = w / s
        square = u * u if u <= TANGENT else u * TANGENT * (1 + ln(u / TANGENT))
        total += s * (square - 2 * u + 1)
    return total


def _confidence_adaptive_ce(p: Point, c: Decimal) -> Decimal:
    confidence = max(abs(w - 1 / Decimal(len(p.label))) for w in p.label)
    return entropy(p.label, p.s) if confidence >= c else entropy(p.s, p.clipped)


def _product_loss(p: Point, a: Decimal, b: Decimal) -> Decimal:
    """H(t, s) with t ~ sᵇ wᵃ; 0 to the power 0 is 1."""
    product = [
        (b * ln(s) + a * ln(w or Decimal(1))).exp() * (1 if w or not a else 0)
        for s, w in zip(p.fixed, p.w, strict=True)
    ]
    return entropy(tuple(x / _sum(product) for x in product), p.s)


def _squares(p: Point, by: Probs) -> Decimal:
    return _sum([(s - w) ** 2 / q for s, w, q in zip(p.s, p.w, by, strict=True)])


VALUES: Mapping[str, Callable[..., Decimal]] = {
    "forward_ce": lambda p: entropy(p.w, p.s),
    "forward_kl": lambda p: kl(p.w, p.s),
    "reverse_kl": lambda p: kl(p.s, p.w),
    "reverse_ce": lambda p: entropy(p.s, p.w),
    "jeffreys": lambda p: kl(p.w, p.s) + kl(p.s, p.w),
    "jensen_shannon": lambda p: _jensen_shannon(p, Decimal("0.5")),
    "generalised_jensen_shannon": _jensen_shannon,
    "squared_hellinger": lambda p: (
        1 - _sum([(s * w).sqrt() for s, w in zip(p.s, p.w, strict=True)])
    ),
    "alpha_divergence": _alpha_divergence,
    "pearson_chi2": lambda p: _squares(p, p.w),
    "neyman_chi2": _neyman_chi2,
    "total_variation": lambda p: _sum([abs(s - w) for s, w in zip(p.s, p.w, strict=True)]) / 2,
    "symmetric_ce": lambda p, a, b: a * entropy(p.label, p.s) + b * entropy(p.s, p.clipped),
    "confidence_adaptive_ce": _confidence_adaptive_ce,
    "product_loss": _product_loss,
}
"""The value of each loss, by name, from a point and its parameters."""
