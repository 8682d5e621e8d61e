"""Twelve ways to learn from a soft label, each in nats, at its true scale (docs/losses.md §1).

For one example, w is the weak model's distribution over K classes and s = softmax(logits) the
student's. A preference pair is K = 2 with logits (0, z). Everything is computed in float32 from
log-softmax, whatever the input's precision; labels are constants, and no gradient reaches them.

Where the labels are clipped
    In the losses that divide by w or need its log (reverse KL, reverse CE, Jeffreys,
    Jensen-Shannon, Pearson χ²), and there *everywhere* in the loss: w is first clipped to
    [gamma, 1 - gamma] and renormalised. So each of them compares s with one distribution, and
    those that are divergences are zero exactly where s is that distribution. The others use w as
    it comes. So does forward KL: its Σ w log w is a constant whose limit at w = 0 is 0, and
    clipping it would break the two facts that it has forward CE's gradient and is never negative.

Neyman χ² far away
    Σ (s - w)²/s grows like exp |z|, beyond any float by |z| = 1e4. With the density ratio
    u = w/s it is Σ s (u - 1)². Above u = U = 1e12, which needs |z| > 27, we continue
    u² = u exp(log u) along the tangent in log u, as u U (1 + log(u/U)). The generator stays
    convex, keeps a continuous slope and has its only zero at u = 1: still an f-divergence, equal
    to Neyman χ² below U and growing like U times forward KL above. Its gradient is at most about
    U, so that the square which Adam keeps is a float32 too. Clamping s instead would let the
    gradient vanish where the loss is largest.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from w2s_ray.objectives.names import DEFINITIONS, LABEL_CLIP

NEYMAN_LOG_RATIO = math.log(1e12)
"""log U: the log density ratio above which Neyman χ² goes on along its tangent."""


class Sides(NamedTuple):
    """The two distributions of a batch, each (..., K)."""

    log_s: Tensor
    s: Tensor
    w: Tensor
    w_clipped: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """One member of the family: ``function(sides, **parameters) -> (...)``, and how to print it."""

    function: Callable[..., Tensor]
    parameters: Mapping[str, float]
    formula: str


def loss(
    name: str,
    logits: Tensor,
    soft_labels: Tensor,
    *,
    label_clip: float = LABEL_CLIP,
    **parameters: float,
) -> Tensor:
    """The loss ``name`` of every example, in nats.

    logits: (B, K), any float type. soft_labels: (B, K) probabilities; no gradient reaches them.
    label_clip: gamma in (0, 1/K). parameters: of the loss, over its defaults in ``names``.
    Returns (B,) float32, or float64 of float64 logits; other leading shapes than B work alike.
    Value and gradient are finite for |logits| up to 1e4 and labels of 0 or 1.
    Raises ValueError for an unknown name or parameter, and for a gamma outside of its range.
    """
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is not one of {', '.join(LOSSES)}")
    chosen = LOSSES[name]
    if unknown := parameters.keys() - chosen.parameters.keys():
        raise ValueError(f"loss {name!r} has no parameter {', '.join(sorted(unknown))}")
    sides = compare(logits, soft_labels, label_clip)
    return chosen.function(sides, **{**chosen.parameters, **parameters})


def compare(logits: Tensor, soft_labels: Tensor, label_clip: float = LABEL_CLIP) -> Sides:
    """Both sides of every loss from (..., K) logits and probabilities: float32, or float64 of
    float64 logits, as an exact solver has them."""
    if not 0.0 < label_clip < 1.0 / logits.shape[-1]:
        raise ValueError(f"label_clip {label_clip} is not between 0 and 1/K")
    precision = torch.promote_types(logits.dtype, torch.float32)
    log_s = torch.log_softmax(logits.to(precision), dim=-1)
    w = soft_labels.detach().to(precision)
    clipped = w.clamp(label_clip, 1.0 - label_clip)
    return Sides(log_s, log_s.exp(), w, clipped / clipped.sum(dim=-1, keepdim=True))


def forward_ce(sides: Sides) -> Tensor:
    return -(sides.w * sides.log_s).sum(dim=-1)


def forward_kl(sides: Sides) -> Tensor:
    return forward_ce(sides) + torch.xlogy(sides.w, sides.w).sum(dim=-1)


def reverse_kl(sides: Sides) -> Tensor:
    return (sides.s * (sides.log_s - sides.w_clipped.log())).sum(dim=-1)


def reverse_ce(sides: Sides) -> Tensor:
    """Not a divergence: it is least where s puts everything on the label's top class."""
    return -(sides.s * sides.w_clipped.log()).sum(dim=-1)


def jeffreys(sides: Sides) -> Tensor:
    w = sides.w_clipped
    return ((sides.s - w) * (sides.log_s - w.log())).sum(dim=-1)


def jensen_shannon(sides: Sides) -> Tensor:
    w, log_w = sides.w_clipped, sides.w_clipped.log()
    log_m = torch.logaddexp(sides.log_s, log_w) - math.log(2.0)
    return 0.5 * (sides.s * (sides.log_s - log_m) + w * (log_w - log_m)).sum(dim=-1)


def squared_hellinger(sides: Sides) -> Tensor:
    """As ½ Σ (√s - √w)², the same number without cancellation near s = w."""
    return 0.5 * ((0.5 * sides.log_s).exp() - sides.w.sqrt()).square().sum(dim=-1)


def pearson_chi2(sides: Sides) -> Tensor:
    w = sides.w_clipped
    return ((sides.s - w).square() / w).sum(dim=-1)


def neyman_chi2(sides: Sides) -> Tensor:
    """As Σ s (w/s - 1)², with the tangent of the module's docstring where w/s > 1e12."""
    log_ratio = sides.w.log() - sides.log_s
    near = sides.s * log_ratio.clamp(max=NEYMAN_LOG_RATIO).expm1().square()
    excess = (log_ratio - NEYMAN_LOG_RATIO).clamp(min=0.0)
    far = sides.w * (math.exp(NEYMAN_LOG_RATIO) * (1.0 + excess) - 2.0) + sides.s
    return torch.where(log_ratio <= NEYMAN_LOG_RATIO, near, far).sum(dim=-1)


def total_variation(sides: Sides) -> Tensor:
    return 0.5 * (sides.s - sides.w).abs().sum(dim=-1)


def symmetric_ce(sides: Sides, *, a: float, b: float) -> Tensor:
    return a * forward_ce(sides) + b * reverse_ce(sides)


def confidence_adaptive_ce(sides: Sides, *, c: float) -> Tensor:
    """Forward CE for a confident label, reverse CE for the others; the label unclipped decides."""
    confidence = (sides.w - 1.0 / sides.w.shape[-1]).abs().amax(dim=-1)
    return torch.where(confidence >= c, forward_ce(sides), reverse_ce(sides))


LOSSES: dict[str, Loss] = {
    function.__name__: Loss(
        function,
        DEFINITIONS[function.__name__].parameters,
        DEFINITIONS[function.__name__].formula,
    )
    for function in (
        forward_ce,
        forward_kl,
        reverse_kl,
        reverse_ce,
        jeffreys,
        jensen_shannon,
        squared_hellinger,
        pearson_chi2,
        neyman_chi2,
        total_variation,
        symmetric_ce,
        confidence_adaptive_ce,
    )
}
