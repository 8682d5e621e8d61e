"""One head on frozen features as a plain module: heads trained together are held against it."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from w2s_ray.models.scorer import Head


class BiasedHead(Head):
    """A head on stored features: with a bias for classes, none for pairs, in which it cancels."""

    def __init__(self, hidden_size: int, num_classes: int, per_row: int) -> None:
        super().__init__(hidden_size, num_classes, per_row)
        self.bias = nn.Parameter(torch.zeros(num_classes)) if per_row == 1 else None

    def forward(self, states: Tensor) -> Tensor:
        """As ``Head``."""
        logits: Tensor = super().forward(states)
        return logits if self.bias is None else logits + self.bias


class LinearScorer(nn.Module):
    """It starts at zero, where every row is undecided."""

    def __init__(self, hidden_size: int, num_classes: int, per_row: int) -> None:
        super().__init__()
        self.head = BiasedHead(hidden_size, num_classes, per_row)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], per_row: int) -> Self:
        """The scorer whose ``state_dict`` is ``state``; a bias that it lacks is 0."""
        outputs, hidden_size = state["head.weight"].shape
        scorer = cls(hidden_size, max(outputs, 2), per_row)
        unknown = scorer.load_state_dict(dict(state), strict=False).unexpected_keys
        assert not unknown, unknown
        return scorer

    def forward(self, features: Tensor) -> Tensor:
        """(b, m, H) float32 → (b, K) float32."""
        logits: Tensor = self.head(features.flatten(0, 1))
        return logits

    @torch.no_grad()
    def fold(self, mean: Tensor, scale: Tensor) -> Self:
        """The scorer that gives on raw features x what this one gives on (x − mean) / scale.

        For pairs the mean cancels in r(A) − r(B), so only the scale enters.

        Args:
            mean, scale: (H,) float32.
        """
        folded = {"head.weight": self.head.weight / scale}
        if self.head.bias is not None:
            folded["head.bias"] = self.head.bias - folded["head.weight"] @ mean
        return type(self).from_state(folded, self.head.per_row)
