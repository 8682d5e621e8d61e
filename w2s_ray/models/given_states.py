"""Stands for the base model of a class of transformers whose states are known.

With it the forward function of a causal language model computes logits of given states, with the
scales, caps and biases of its architecture.
"""

from typing import Any

from torch import Tensor, nn


class GivenStates(nn.Module):
    """Stands for a backbone whose states are known; its output has nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.last_hidden_state: Tensor | None = None

    @property
    def decoder(self) -> "GivenStates":
        """By this name the class of OPT calls its backbone's only part."""
        return self

    def forward(self, *arguments: Any, **options: Any) -> "_Output":
        assert self.last_hidden_state is not None
        return _Output(self.last_hidden_state)


class _Output:
    """An output of a backbone in which every field but the states is None."""

    def __init__(self, states: Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None
