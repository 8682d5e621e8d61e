"""Before anything is timed: do all ways of running a step give the same numbers?

* fp32: packed lines against padded separate rows (as ``gpu_pairs.py`` checks them);
* fp32: checkpointed blocks against others, every gradient;
* bf16: compiled blocks against eager ones, the loss.
"""

from typing import Any

import torch
from torch import Tensor

from tests.benchmarks import gpu_pairs
from tests.benchmarks.gpu_model import (
    SMALL,
    Variant,
    build,
    optimizer_batch,
    set_checkpointing,
    set_compiled,
)
from w2s_ray.models.scorer import Scorer
from w2s_ray.objectives.objective import Objective

TOLERANCE = gpu_pairs.TOLERANCE
LOSS_TOLERANCE = 0.02  # bf16, relative
CHECKED = Variant("checked", False, 0, 768, 1)


def checks(device: str, compiled: bool) -> dict[str, dict[str, float]]:
    """By name: how far apart, and how far at most. ``compiled``: try that too."""
    found = {}
    pairs = gpu_pairs.draw(12, (64, 48), SMALL["vocab_size"], 0, device)
    for what, apart in gpu_pairs.differences(SMALL, pairs, device).items():
        found[f"packed {what}"] = {"apart": apart, "most": TOLERANCE}
    plain, plain_gradients = _numbers(torch.float32, device)
    again, again_gradients = _numbers(torch.float32, device, every=1)
    apart = max(_apart(again_gradients[n], g) for n, g in plain_gradients.items())
    apart = max(apart, abs(again / plain - 1))
    found["checkpointed gradients"] = {"apart": apart, "most": TOLERANCE}
    if compiled:
        eager, _ = _numbers(torch.bfloat16, device)
        for every in (0, 1):
            fast, _ = _numbers(torch.bfloat16, device, every=every, compiled=True)
            name = "compiled loss" + (", checkpointed" if every else "")
            found[name] = {"apart": abs(fast / eager - 1), "most": LOSS_TOLERANCE}
    return found


def _numbers(
    dtype: torch.dtype, device: str, every: int = 0, compiled: bool = False
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one line of pairs."""
    model = build(SMALL, dtype, device)
    set_checkpointing(model, every)
    if compiled:
        set_compiled(model, True)
    scorer = Scorer(model, SMALL["hidden_size"], 2, 2, seed=0)
    (batch,) = optimizer_batch(CHECKED, 256, SMALL["vocab_size"], 0)
    inputs: dict[str, Any] = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
    losses = Objective("reverse_kl")(scorer(**inputs), batch.soft_labels.to(device))
    losses.mean().backward()
    gradients = {n: p.grad for n, p in scorer.named_parameters() if p.grad is not None}
    assert len(gradients) == sum(1 for _ in scorer.parameters())
    return float(losses.detach().mean()), gradients


def _apart(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
