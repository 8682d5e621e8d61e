"""The losses by name, as data: the formula a report prints and the parameters a spec may set.

w is the weak model's soft label, s the student's prediction, m = (s + w)/2; sums run over the
classes. Every name states the direction, because two published papers leave it open. This module
imports no torch: ``spec`` validates names and ``plan`` prints formulas without loading it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

LABEL_CLIP = 1e-3
"""γ: a label is clipped to [γ, 1 - γ] before a loss divides by it or takes its log."""


class Definition(NamedTuple):
    """A loss as data.

    Attributes:
        formula: for display.
        parameters: every parameter the loss accepts, with its default.
    """

    formula: str
    parameters: Mapping[str, float] = MappingProxyType({})


DEFINITIONS: Mapping[str, Definition] = MappingProxyType(
    {
        "forward_ce": Definition("H(w, s) = -Σ w log s"),
        "forward_kl": Definition("KL(w‖s) = Σ w log(w/s)"),
        "reverse_kl": Definition("KL(s‖w) = Σ s log(s/w)"),
        "reverse_ce": Definition("H(s, w) = -Σ s log w"),
        "jeffreys": Definition("KL(w‖s) + KL(s‖w)"),
        "jensen_shannon": Definition("½ KL(s‖m) + ½ KL(w‖m), m = (s + w)/2"),
        "squared_hellinger": Definition("1 - Σ √(s w)"),
        "pearson_chi2": Definition("Σ (s - w)²/w"),
        "neyman_chi2": Definition("Σ (s - w)²/s"),
        "total_variation": Definition("½ Σ |s - w|"),
        # Wang et al. 2019 (arXiv 1908.06112), whose alpha and beta are a and b.
        "symmetric_ce": Definition("a H(w, s) + b H(s, w)", MappingProxyType({"a": 1.0, "b": 0.1})),
        # c is our choice: for K = 2, half-way between a fair coin (0) and certainty (0.5).
        "confidence_adaptive_ce": Definition(
            "H(w, s) where max |w - 1/K| ≥ c, else H(s, w)", MappingProxyType({"c": 0.25})
        ),
    }
)
