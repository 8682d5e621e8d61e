"""The engine's update is torch's AdamW of the mean loss and the penalty of the anchor."""

import pytest
import torch
from torch import nn

from w2s_ray.training.engine import Adam, TorchEngine


class Bare(nn.Module):
    """Two parameters of random values; ``logits`` of the rows x."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 5, generator=generator))
        self.bias = nn.Parameter(torch.randn(3, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.bias


def trained(adam: Adam, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    scorer = Bare().to(dtype)
    engine = TorchEngine(scorer, list(scorer.parameters()), adam)
    for step in range(6):
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step)).to(dtype)
        engine.backward(engine.logits({"x": x}).float().square().mean(), last=True)
        engine.step(0.1 / (1 + step))
    return [tensor for _, tensor in engine.whole(["weight", "bias"])]


def by_torch(weight_decay: float, anchor: float) -> list[torch.Tensor]:
    scorer = Bare()
    initial = [p.detach().clone() for p in scorer.parameters()]
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=0.0, weight_decay=weight_decay)
    for step in range(6):
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        pairs = zip(scorer.parameters(), initial, strict=True)
        penalty = anchor / 2 * sum((p - start).square().sum() for p, start in pairs)
        optimizer.zero_grad()
        (scorer(x).square().mean() + penalty).backward()
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()
    return [p.detach() for p in scorer.parameters()]


@pytest.mark.parametrize(
    ("decay", "anchor"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.4), (0.7, 0.4), (0.0, 5.0)]
)
def test_decay_is_adamws_and_the_anchor_is_part_of_the_objective(
    decay: float, anchor: float
) -> None:
    ours = trained(Adam(weight_decay=decay, anchor=anchor))
    for one, other in zip(ours, by_torch(decay, anchor), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_bf16_model_is_anchored_at_its_initial_weights_too() -> None:
    """Its fp32 masters move less; without an anchor nothing depends on where they began."""
    start = [p.detach() for p in Bare().bfloat16().parameters()]
    moved = [
        sum(
            float((p - s).square().sum())
            for p, s in zip(trained(a, torch.bfloat16), start, strict=True)
        )
        for a in (Adam(), Adam(anchor=5.0))
    ]
    assert moved[1] < 0.7 * moved[0]
