"""Losses for learning from a soft label, each in nats at its true scale (docs/losses.md §1).

For one example, w is the weak model's distribution over K classes and s = softmax(logits) the
student's. A preference pair is K = 2 with logits (0, z). Everything is computed from log-softmax,
in float32 whatever the input's precision; labels are constants and receive no gradient.

What is float64 inside
    Losses in which float32 misses the true value by more than 1e-6 or its gradient by 2e-6
    (``in_float64``): Pearson χ² divides the rounding of s by w, Neyman χ² exponentiates that of
    log s, the α-divergence divides it by 1 - a, and total variation needs the sign of s - w. Their
    results and gradients leave in the precision of all others.

Where labels are clipped
    Losses that divide by w or take its log (``clips_label`` in ``names.DEFINITIONS``) use a
    clipped label *everywhere*: w is clipped to [γ, 1 - γ] and renormalised before the function of
    the loss sees it. Each of them therefore compares s with a single distribution, and those that
    are divergences are zero exactly where s equals it. The other losses use w unclipped; those
    with a reverse CE in them clip the label for that term alone. Forward KL does not clip: the
    limit of its constant Σ w log w at w = 0 is 0, and clipping would break two facts, that it has
    forward CE's gradient and that it is never negative.

Neyman χ² far from the label
    Σ (s - w)²/s grows like exp |z| and overflows any float by |z| = 1e4. In terms of the density
    ratio u = w/s it is Σ s (u - 1)². Above u = U = 1e12, which requires |z| > 27, we continue
    u² = u exp(log u) along its tangent in log u, as u U (1 + log(u/U)). The generator stays
    convex, has a continuous slope and its only zero at u = 1, so the loss is still an
    f-divergence: equal to Neyman χ² below U and growing like U times forward KL above. Its
    gradient is at most about U, so that its square, which Adam accumulates, fits in float32.
    Clamping s instead would make the gradient vanish where the loss is largest.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from w2s_ray.objectives.names import DEFINITIONS, LABEL_CLIP

NEYMAN_LOG_RATIO = math.log(1e12)
"""log U: the log density ratio above which Neyman χ² continues along its tangent."""


class Distributions(NamedTuple):
    """The two distributions that a loss compares, each (..., K).

    Attributes:
        log_s: log-probabilities of the student.
        s: probabilities of the student.
        w: the soft labels that the loss uses: clipped if its definition says so, else as given.
        w_clipped: the soft labels clipped to [γ, 1 - γ] and renormalised.
        deciding: the soft labels by which a loss of several cases decides: w as given, unless that
            is mixed with the student's own prediction.
    """

    log_s: Tensor
    s: Tensor
    w: Tensor
    w_clipped: Tensor
    deciding: Tensor

    @property
    def clipped(self) -> "Distributions":
        """The same with the clipped label as w."""
        return self._replace(w=self.w_clipped)


def loss(
    name: str,
    logits: Tensor,
    soft_labels: Tensor,
    *,
    label_clip: float = LABEL_CLIP,
    deciding: Tensor | None = None,
    **parameters: float,
) -> Tensor:
    """The loss ``name`` of every example, in nats.

    Value and gradient are finite for |logits| up to 1e4 and for labels of exactly 0 or 1.

    Args:
        name: a loss in ``LOSSES``.
        logits: (B, K), any float type; more leading dimensions work alike.
        soft_labels: (B, K) probabilities, treated as constants.
        label_clip: γ, in (0, 1/K).
        deciding: (B, K) labels by which a loss of several cases decides; None: the soft labels.
        parameters: of the loss; the others keep their defaults.

    Returns:
        (B,) float32, or float64 for float64 logits.

    Raises:
        ValueError: unknown name or parameter, or γ out of range.
    """
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is not one of {', '.join(LOSSES)}")
    definition = DEFINITIONS[name]
    if unknown := parameters.keys() - definition.parameters.keys():
        raise ValueError(f"loss {name!r} has no parameter {', '.join(sorted(unknown))}")
    precision = torch.promote_types(logits.dtype, torch.float32)
    inside = torch.float64 if definition.in_float64 else precision
    used = distributions(logits.to(inside), soft_labels, label_clip)
    if deciding is not None:
        used = used._replace(deciding=deciding.detach().to(used.w.dtype))
    if definition.clips_label:
        used = used.clipped
    return LOSSES[name](used, **{**definition.defaults, **parameters}).to(precision)


def distributions(
    logits: Tensor, soft_labels: Tensor, label_clip: float = LABEL_CLIP
) -> Distributions:
    """The two distributions of (..., K) logits and soft labels, with w as given.

    The result is float32, or float64 for float64 logits, which exact solvers use.

    Raises:
        ValueError: ``label_clip`` is not in (0, 1/K).
    """
    if not 0.0 < label_clip < 1.0 / logits.shape[-1]:
        raise ValueError(f"label_clip {label_clip} is not between 0 and 1/K")
    precision = torch.promote_types(logits.dtype, torch.float32)
    log_s = torch.log_softmax(logits.to(precision), dim=-1)
    w = soft_labels.detach().to(precision)
    clipped = w.clamp(label_clip, 1.0 - label_clip)
    return Distributions(log_s, log_s.exp(), w, clipped / clipped.sum(dim=-1, keepdim=True), w)


def forward_ce(d: Distributions) -> Tensor:
    """H(w, s) = -Σ w log s."""
    return -(d.w * d.log_s).sum(dim=-1)


def forward_kl(d: Distributions) -> Tensor:
    """KL(w‖s)."""
    return forward_ce(d) + torch.xlogy(d.w, d.w).sum(dim=-1)


def reverse_kl(d: Distributions) -> Tensor:
    """KL(s‖w)."""
    return (d.s * (d.log_s - d.w.log())).sum(dim=-1)


def reverse_ce(d: Distributions) -> Tensor:
    """Σ s log(1/w): not a divergence; it is smallest where s puts all mass on w's top class."""
    return -(d.s * d.w.log()).sum(dim=-1)


def jeffreys(d: Distributions) -> Tensor:
    """KL(w‖s) + KL(s‖w)."""
    return ((d.s - d.w) * (d.log_s - d.w.log())).sum(dim=-1)


def jensen_shannon(d: Distributions) -> Tensor:
    """½ KL(s‖m) + ½ KL(w‖m) with m = (s + w)/2."""
    log_w = d.w.log()
    log_m = torch.logaddexp(d.log_s, log_w) - math.log(2.0)
    return 0.5 * (d.s * (d.log_s - log_m) + d.w * (log_w - log_m)).sum(dim=-1)


def generalised_jensen_shannon(d: Distributions, *, b: float) -> Tensor:
    """b KL(w‖m) + (1 - b) KL(s‖m) with m = b w + (1 - b) s."""
    log_w = d.w.log()
    log_m = torch.logaddexp(d.log_s + math.log1p(-b), log_w + math.log(b))
    return (b * d.w * (log_w - log_m) + (1.0 - b) * d.s * (d.log_s - log_m)).sum(dim=-1)


def squared_hellinger(d: Distributions) -> Tensor:
    """½ Σ (√s - √w)², which equals 1 - Σ √(s w) but does not cancel near s = w."""
    return 0.5 * ((0.5 * d.log_s).exp() - d.w.sqrt()).square().sum(dim=-1)


def alpha_divergence(d: Distributions, *, a: float) -> Tensor:
    """Σ [a s + (1 - a) w - sᵃ w¹⁻ᵃ]/(a (1 - a)): no term is negative or cancels near s = w.

    It equals (Σ sᵃ w¹⁻ᵃ - 1)/(a (a - 1)), as both distributions sum to 1.
    """
    log_ratio = d.log_s - d.w.log()
    terms = d.w * (a * log_ratio.expm1() - (a * log_ratio).expm1())
    return terms.sum(dim=-1) / (a * (1.0 - a))


def pearson_chi2(d: Distributions) -> Tensor:
    """Σ (s - w)²/w."""
    return ((d.s - d.w).square() / d.w).sum(dim=-1)


def neyman_chi2(d: Distributions) -> Tensor:
    """Σ s (w/s - 1)², continued along a tangent where w/s > 1e12 (see the module docstring)."""
    log_ratio = d.w.log() - d.log_s
    near = d.s * log_ratio.clamp(max=NEYMAN_LOG_RATIO).expm1().square()
    excess = (log_ratio - NEYMAN_LOG_RATIO).clamp(min=0.0)
    far = d.w * (math.exp(NEYMAN_LOG_RATIO) * (1.0 + excess) - 2.0) + d.s
    return torch.where(log_ratio <= NEYMAN_LOG_RATIO, near, far).sum(dim=-1)


def total_variation(d: Distributions) -> Tensor:
    """½ Σ |s - w|."""
    return 0.5 * (d.s - d.w).abs().sum(dim=-1)


def symmetric_ce(d: Distributions, *, a: float, b: float) -> Tensor:
    """a H(w, s) + b H(s, w)."""
    return a * forward_ce(d) + b * reverse_ce(d.clipped)


def confidence_adaptive_ce(d: Distributions, *, c: float) -> Tensor:
    """Forward CE where the unclipped label is confident (max |w - 1/K| ≥ c), else reverse CE."""
    confidence = (d.deciding - 1.0 / d.w.shape[-1]).abs().amax(dim=-1)
    return torch.where(confidence >= c, forward_ce(d), reverse_ce(d.clipped))


def product_loss(d: Distributions, *, a: float, b: float) -> Tensor:
    """Cross-entropy from the normalised product sᵇ wᵃ, through which no gradient flows."""
    product = b * d.log_s.detach() + torch.xlogy(a, d.w)
    return forward_ce(d._replace(w=torch.softmax(product, dim=-1)))


LOSSES: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        forward_ce,
        forward_kl,
        reverse_kl,
        reverse_ce,
        jeffreys,
        jensen_shannon,
        generalised_jensen_shannon,
        squared_hellinger,
        alpha_divergence,
        pearson_chi2,
        neyman_chi2,
        total_variation,
        symmetric_ce,
        confidence_adaptive_ce,
        product_loss,
    )
}
"""``function(distributions, **parameters)``, (..., K) -> (...), by the name of the loss."""
