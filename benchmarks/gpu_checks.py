"""Before anything is timed: do all ways of running a step give the same numbers?

* fp32: packed lines against padded separate rows (as ``gpu_pairs.py`` checks them);
* fp32: checkpointed blocks against others, every gradient;
* bf16: compiled blocks against eager ones, loss and norm of the gradient, as the variants ask for.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import gpu_pairs
from benchmarks.gpu_model import (
    SMALL,
    Variant,
    build,
    optimizer_batch,
    set_up,
    variant,
)
from w2s_ray.models.scorer import Scorer
from w2s_ray.objectives.objective import Objective

TOLERANCE = gpu_pairs.TOLERANCE
BF16_TOLERANCE = 0.03  # relative
CHECKED = variant("eager:768x1")


def checks(device: str, variants: Sequence[Variant]) -> Iterator[tuple[str, float, float]]:
    """One after another: name, how far apart, how far at most. ``variants``: to be timed."""
    pairs = gpu_pairs.draw(12, (64, 48), SMALL["vocab_size"], 0, device)
    for what, apart in gpu_pairs.differences(SMALL, pairs, device).items():
        yield f"packed {what}", apart, TOLERANCE
    plain, plain_gradients = _numbers(torch.float32, device)
    again, again_gradients = _numbers(torch.float32, device, every=1)
    apart = max(_apart(again_gradients[n], g) for n, g in plain_gradients.items())
    apart = max(apart, abs(again / plain - 1))
    yield "checkpointed gradients", apart, TOLERANCE
    eager, norm = _loss_and_norm(*_numbers(torch.bfloat16, device))
    for keep, every in sorted({(v.keep, v.checkpoint_every) for v in variants if v.keep}):
        fast, its_norm = _loss_and_norm(*_numbers(torch.bfloat16, device, every=every, keep=keep))
        apart = max(abs(fast / eager - 1), abs(its_norm / norm - 1))
        name = f"compiled ({keep:g})" + (f", checkpointed/{every}" if every else "")
        yield name, apart, BF16_TOLERANCE


def _loss_and_norm(loss: float, gradients: dict[str, Tensor]) -> tuple[float, float]:
    return loss, float(nn.utils.get_total_norm(gradients.values()))


def _numbers(
    dtype: torch.dtype, device: str, every: int = 0, keep: float | None = None
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one line of pairs; ``keep`` None: eager."""
    model = build(SMALL, dtype, device)
    set_up(model, keep, every)
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
