"""Each loss once more, by other means: one row of ``REFERENCES`` per loss."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cityblock, euclidean, jensenshannon
from scipy.special import expit, logit
from scipy.stats import chisquare, entropy
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

Array = NDArray[np.float64]


class Pairs:
    """Preference pairs as docs/losses.md §1 has them: s, w and m are of class 1."""

    def __init__(self, z: Array, w: Array) -> None:
        self.z, self.w = z, w
        self.s: Array = expit(z)
        self.m: Array = (self.s + w) / 2
        self.d: Array = self.s - w
        self.v: Array = self.s * (1 - self.s)
        self.l: Array = logit(w)


class Reference(NamedTuple):
    """What is tested about one loss, with its default parameters.

    Attributes:
        value: of one example in float64 by scipy or torch.distributions, from s (K,) and the label
            as given and clipped; it shares no formula with ours.
        gradient: dL/dz of pairs, term by term as the table of docs/losses.md §1 prints it.
        formula: the definition, (B, K) predictions and unclipped labels -> (B,), for autograd.
        squared_tv: c where the loss is a divergence: it is at least c * (total variation)².
            Pinsker and its relatives; with them, "small" means "close", so that a divergence
            cannot vanish anywhere but at s = w.
    """

    value: Callable[[Array, Array, Array], ArrayLike]
    gradient: Callable[[Pairs], Array]
    formula: Callable[[Tensor, Tensor], Tensor]
    squared_tv: float | None = None


def cross_entropy(p: Array, q: Array) -> float:
    """H(p, q)."""
    return float(entropy(p) + entropy(p, q))


def kl(p: Array, q: Array) -> float:
    """KL(p‖q) by torch."""
    one, other = Categorical(torch.tensor(p)), Categorical(torch.tensor(q))
    return float(kl_divergence(one, other))


def is_confident(w: Array) -> bool:
    """Whether a label is at least 0.25, the default of c, from 1/K."""
    return bool(np.abs(w - 1 / len(w)).max() >= 0.25)


REFERENCES: Mapping[str, Reference] = MappingProxyType(
    {
        "forward_ce": Reference(
            value=lambda s, w, clipped: cross_entropy(w, s),
            gradient=lambda p: p.d,
            formula=lambda s, w: -(w * s.log()).sum(-1),
        ),
        "forward_kl": Reference(
            value=lambda s, w, clipped: entropy(w, s),
            gradient=lambda p: p.d,
            formula=lambda s, w: (w * (w / s).log()).sum(-1),
            squared_tv=2.0,
        ),
        "reverse_kl": Reference(
            value=lambda s, w, clipped: kl(s, clipped),
            gradient=lambda p: p.v * (p.z - p.l),
            formula=lambda s, w: (s * (s / w).log()).sum(-1),
            squared_tv=2.0,
        ),
        "reverse_ce": Reference(
            value=lambda s, w, clipped: cross_entropy(s, clipped),
            gradient=lambda p: -p.v * p.l,
            formula=lambda s, w: -(s * w.log()).sum(-1),
        ),
        "jeffreys": Reference(
            value=lambda s, w, clipped: kl(s, clipped) + kl(clipped, s),
            gradient=lambda p: p.d + p.v * (p.z - p.l),
            formula=lambda s, w: ((s - w) * (s / w).log()).sum(-1),
            squared_tv=4.0,
        ),
        "jensen_shannon": Reference(
            value=lambda s, w, clipped: jensenshannon(s, clipped) ** 2,
            gradient=lambda p: 0.5 * p.v * (np.log(p.s / p.m) - np.log((1 - p.s) / (1 - p.m))),
            formula=lambda s, w: (
                (s * (2 * s / (s + w)).log() + w * (2 * w / (s + w)).log()).sum(-1) / 2
            ),
            squared_tv=0.5,
        ),
        # b = 0.1. Pinsker of both terms: 2 b (1 - b)² TV² + 2 (1 - b) b² TV² = 2 b (1 - b) TV².
        "generalised_jensen_shannon": Reference(
            value=lambda s, w, clipped: (
                entropy(0.1 * clipped + 0.9 * s) - 0.1 * entropy(clipped) - 0.9 * entropy(s)
            ),
            gradient=lambda p: (
                0.9
                * p.v
                * (
                    np.log(p.s / (0.1 * p.w + 0.9 * p.s))
                    - np.log((1 - p.s) / (1 - 0.1 * p.w - 0.9 * p.s))
                )
            ),
            formula=lambda s, w: (
                0.1 * w * (w / (0.1 * w + 0.9 * s)).log()
                + 0.9 * s * (s / (0.1 * w + 0.9 * s)).log()
            ).sum(-1),
            squared_tv=0.18,
        ),
        "squared_hellinger": Reference(
            value=lambda s, w, clipped: euclidean(np.sqrt(s), np.sqrt(w)) ** 2 / 2,
            gradient=lambda p: -0.5 * p.v * (np.sqrt(p.w / p.s) - np.sqrt((1 - p.w) / (1 - p.s))),
            formula=lambda s, w: 1 - (s * w).sqrt().sum(-1),
            squared_tv=0.5,
        ),
        # a = ½: 4 times squared Hellinger, whose constant is ½.
        "alpha_divergence": Reference(
            value=lambda s, w, clipped: 2 * euclidean(np.sqrt(s), np.sqrt(clipped)) ** 2,
            gradient=lambda p: -2 * p.v * (np.sqrt(p.w / p.s) - np.sqrt((1 - p.w) / (1 - p.s))),
            formula=lambda s, w: 4 * (1 - (s * w).sqrt().sum(-1)),
            squared_tv=2.0,
        ),
        "pearson_chi2": Reference(
            value=lambda s, w, clipped: chisquare(s, clipped).statistic,
            gradient=lambda p: 2 * p.d * p.v / (p.w * (1 - p.w)),
            formula=lambda s, w: ((s - w) ** 2 / w).sum(-1),
            squared_tv=4.0,
        ),
        "neyman_chi2": Reference(
            value=lambda s, w, clipped: chisquare(w, s).statistic,
            gradient=lambda p: 2 * p.d - p.d**2 * (1 - 2 * p.s) / p.v,
            formula=lambda s, w: ((s - w) ** 2 / s).sum(-1),
            squared_tv=4.0,
        ),
        "total_variation": Reference(
            value=lambda s, w, clipped: cityblock(s, w) / 2,
            gradient=lambda p: np.sign(p.d) * p.v,
            formula=lambda s, w: (s - w).abs().sum(-1) / 2,
            squared_tv=1.0,
        ),
        "symmetric_ce": Reference(
            value=lambda s, w, clipped: cross_entropy(w, s) + 0.1 * cross_entropy(s, clipped),
            gradient=lambda p: p.d - 0.1 * p.v * p.l,
            formula=lambda s, w: -(w * s.log() + 0.1 * s * w.log()).sum(-1),
        ),
        "confidence_adaptive_ce": Reference(
            value=lambda s, w, clipped: (
                cross_entropy(w, s) if is_confident(w) else cross_entropy(s, clipped)
            ),
            gradient=lambda p: np.where(np.abs(p.w - 0.5) >= 0.25, p.d, -p.v * p.l),
            formula=lambda s, w: torch.where(
                (w[:, 1] - 0.5).abs() >= 0.25, -(w * s.log()).sum(-1), -(s * w.log()).sum(-1)
            ),
        ),
        # a = b = 1: a step of z towards z + l.
        "product_loss": Reference(
            value=lambda s, w, clipped: cross_entropy(s * w / (s * w).sum(), s),
            gradient=lambda p: p.s - expit(p.z + p.l),
            formula=lambda s, w: (
                -((s * w / (s * w).sum(-1, keepdim=True)).detach() * s.log()).sum(-1)
            ),
        ),
    }
)
