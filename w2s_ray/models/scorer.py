"""A backbone and a head that turn texts into logits.

The head reads the hidden state of a text's last real token. Its position follows from lengths:
token 0 is "!" in the GPT-2 and Qwen vocabularies, so no token id may mean "padding". Only the
states that are read are converted to fp32.
"""

from typing import Any

import torch
from torch import Tensor, nn

from w2s_ray.models import packed_attention

INIT_STD = 0.02


def readout(backbone: nn.Module, input_ids: Tensor, segments: Tensor) -> Tensor:
    """Last hidden states (b·m, H) float32 of every text; texts of a row are adjacent.

    Args:
        backbone: causal model with ``last_hidden_state`` in its output. Prompts are shared if
            packed attention is on (``packed_attention.use_if_exact``).
        input_ids: (T,) int64, row after row: prompt, answer 1, …, answer m.
        segments: (b, 1 + m) int64, number of tokens of each; T in all.
    """
    config: Any = backbone.config
    shared = config._attn_implementation == packed_attention.NAME
    read = packed_attention.packed if shared else packed_attention.separate
    return read(backbone, input_ids, segments).float()


class Head(nn.Module):
    """Linear head in float32: one reward for pairs, K logits for classes; weights start at zero.

    It has no bias, because the classes of transformers that a model is exported to have none.

    Args:
        hidden_size: H.
        num_classes: K; 2 for pairs.
        per_row: texts of a row, m: 2 for pairs, 1 for classification.
    """

    def __init__(self, hidden_size: int, num_classes: int, per_row: int) -> None:
        super().__init__()
        assert (per_row, num_classes) == (2, 2) or (per_row == 1 and num_classes >= 2)
        outputs = 1 if per_row == 2 else num_classes
        self.per_row = per_row
        self.weight = nn.Parameter(torch.zeros(outputs, hidden_size))

    def forward(self, states: Tensor) -> Tensor:
        """(b·m, H) float32 → (b, K) float32; for a pair (A, B): (0, r(A) − r(B))."""
        outputs = nn.functional.linear(states, self.weight.float())
        if self.per_row == 1:
            return outputs
        rewards = outputs.view(-1, 2)
        margin = rewards[:, 0] - rewards[:, 1]
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


class Scorer(nn.Module):
    """A backbone with a head whose weights are drawn at random.

    Args:
        backbone: causal model, bf16 or fp32.
        hidden_size, num_classes, per_row: as for ``Head``.
        seed: of the head's initial weights, N(0, 0.02²).
    """

    def __init__(
        self,
        backbone: nn.Module,
        hidden_size: int,
        num_classes: int,
        per_row: int,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Head(hidden_size, num_classes, per_row)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, std=INIT_STD, generator=generator)
        self.head.to(next(backbone.parameters()).device)

    def forward(self, input_ids: Tensor, segments: Tensor) -> Tensor:
        """Logits (b, K) float32 of b packed rows; arguments as for ``readout``."""
        logits: Tensor = self.head(readout(self.backbone, input_ids, segments))
        return logits
