"""The losses by name, as data: formula, parameters with their ranges, and facts about the loss.

w is the weak model's soft label, s the student's prediction, m = (s + w)/2; sums run over the
classes. Every name states the direction, because two published papers leave it open. This module
imports no torch: ``spec`` validates names and ``plan`` prints formulas without loading it.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

LABEL_CLIP = 1e-3
"""γ: a label is clipped to [γ, 1 - γ] before a loss divides by it or takes its log."""


class Parameter(NamedTuple):
    """A parameter of a loss: a number from ``low`` to ``high``.

    Attributes:
        default: the value where a spec sets none.
        low: the smallest value.
        high: the largest value.
        is_open: whether ``low`` and ``high`` themselves are excluded.
    """

    default: float
    low: float = 0.0
    high: float = math.inf
    is_open: bool = False

    def allows(self, value: float) -> bool:
        """Whether ``value`` is in the range."""
        if self.is_open:
            return self.low < value < self.high
        return self.low <= value <= self.high

    @property
    def expected(self) -> str:
        """The range in words; completes the sentence "expected …"."""
        lower, upper = ("above", "below") if self.is_open else ("at least", "at most")
        bounds = [f"{lower} {self.low:g}"] if self.low > -math.inf else []
        bounds += [f"{upper} {self.high:g}"] if self.high < math.inf else []
        number = "a number of" if bounds and not self.is_open else "a number"
        return f"{number} {' and '.join(bounds)}".rstrip()


class Definition(NamedTuple):
    """A loss as data.

    Attributes:
        formula: for display.
        parameters: every parameter the loss accepts.
        clips_label: whether the loss is computed with the clipped label in place of w, because it
            divides by w or takes its logarithm.
        moves_target: whether the label that s is compared with is made of s itself, as a constant.
            Its gradient is then not that of its value, and no solver can minimise it.
        is_divergence: whether the loss is ≥ 0, and 0 exactly where s is the label it uses.
        in_float64: whether float32 loses too many digits inside (docs/losses.md §1, "How exact").
    """

    formula: str
    parameters: Mapping[str, Parameter] = MappingProxyType({})
    clips_label: bool = False
    is_divergence: bool = False
    moves_target: bool = False
    in_float64: bool = False

    @property
    def defaults(self) -> dict[str, float]:
        """The default of every parameter."""
        return {name: parameter.default for name, parameter in self.parameters.items()}


DEFINITIONS: Mapping[str, Definition] = MappingProxyType(
    {
        "forward_ce": Definition("H(w, s) = -Σ w log s"),
        "forward_kl": Definition("KL(w‖s) = Σ w log(w/s)", is_divergence=True),
        "reverse_kl": Definition("KL(s‖w) = Σ s log(s/w)", clips_label=True, is_divergence=True),
        "reverse_ce": Definition("H(s, w) = -Σ s log w", clips_label=True),
        "jeffreys": Definition("KL(w‖s) + KL(s‖w)", clips_label=True, is_divergence=True),
        "jensen_shannon": Definition(
            "½ KL(s‖m) + ½ KL(w‖m), m = (s + w)/2", clips_label=True, is_divergence=True
        ),
        # Englesson & Azizpour 2021 (arXiv 2105.04522), unscaled; b is the weight of the label.
        "generalised_jensen_shannon": Definition(
            "b KL(w‖m) + (1 - b) KL(s‖m), m = b w + (1 - b) s",
            MappingProxyType({"b": Parameter(0.1, 0.0, 1.0, is_open=True)}),
            clips_label=True,
            is_divergence=True,
        ),
        "squared_hellinger": Definition("1 - Σ √(s w)", is_divergence=True),
        # Amari's family: a → 0 is KL(w‖s), a → 1 is KL(s‖w), a = ½ is 4 times squared Hellinger.
        "alpha_divergence": Definition(
            "(Σ sᵃ w¹⁻ᵃ - 1)/(a (a - 1))",
            MappingProxyType({"a": Parameter(0.5, 0.0, 1.0, is_open=True)}),
            clips_label=True,
            is_divergence=True,
            in_float64=True,
        ),
        "pearson_chi2": Definition(
            "Σ (s - w)²/w", clips_label=True, is_divergence=True, in_float64=True
        ),
        "neyman_chi2": Definition("Σ (s - w)²/s", is_divergence=True, in_float64=True),
        "total_variation": Definition("½ Σ |s - w|", is_divergence=True, in_float64=True),
        # Wang et al. 2019 (arXiv 1908.06112), whose alpha and beta are a and b.
        "symmetric_ce": Definition(
            "a H(w, s) + b H(s, w)", MappingProxyType({"a": Parameter(1.0), "b": Parameter(0.1)})
        ),
        # c is our choice: for K = 2, half-way between a fair coin (0) and certainty (0.5).
        "confidence_adaptive_ce": Definition(
            "H(w, s) where max |w - 1/K| ≥ c, else H(s, w)",
            MappingProxyType({"c": Parameter(0.25)}),
        ),
        # The code of Burns et al. 2023, whose alpha and beta are a and b.
        "product_loss": Definition(
            "H(t, s), t = sᵇ wᵃ/Σ sᵇ wᵃ held constant",
            MappingProxyType({"a": Parameter(1.0), "b": Parameter(1.0)}),
            moves_target=True,
        ),
    }
)
