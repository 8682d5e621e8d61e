"""Checks before timing: do all variants of a step compute the same numbers?

* fp32: packed lines against padded separate rows (as in ``gpu_pairs.py``);
* fp32: checkpointed against ordinary blocks, every gradient;
* bf16: compiled against eager blocks, loss and gradient norm, for the variants to be timed.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
from benchmarks.gpu_pairs import relative
from w2s_ray.models.scorer import Scorer
from w2s_ray.objectives.objective import Objective

TOLERANCE = gpu_pairs.TOLERANCE
BF16_TOLERANCE = 0.03  # relative
CHECKED = variant("eager:768x1")


class Check(NamedTuple):
    """A comparison of two computations.

    Attributes:
        name: what was compared.
        difference: largest relative difference.
        tolerance: of ``difference``.
    """

    name: str
    difference: float
    tolerance: float


class LossAndNorm(NamedTuple):
    """The loss of a step and the norm of its gradient."""

    loss: float
    norm: float


def checks(device: str, variants: Sequence[Variant]) -> Iterator[Check]:
    """Run the checks one after another; ``variants`` are those to be timed."""
    pairs = gpu_pairs.draw(12, (64, 48), SMALL["vocab_size"], 0, device)
    for name, difference in gpu_pairs.differences(SMALL, pairs, device).items():
        yield Check(f"packed {name}", difference, TOLERANCE)
    plain, plain_gradients = _numbers(torch.float32, device)
    again, again_gradients = _numbers(torch.float32, device, every=1)
    difference = max(relative(again_gradients[n], g) for n, g in plain_gradients.items())
    difference = max(difference, abs(again / plain - 1))
    yield Check("checkpointed gradients", difference, TOLERANCE)
    eager = _loss_and_norm(*_numbers(torch.bfloat16, device))
    for keep, every in sorted({(v.keep, v.checkpoint_every) for v in variants if v.keep}):
        compiled = _loss_and_norm(*_numbers(torch.bfloat16, device, every=every, keep=keep))
        difference = max(abs(one / other - 1) for one, other in zip(compiled, eager, strict=True))
        name = f"compiled ({keep:g})" + (f", checkpointed/{every}" if every else "")
        yield Check(name, difference, BF16_TOLERANCE)


def _loss_and_norm(loss: float, gradients: dict[str, Tensor]) -> LossAndNorm:
    return LossAndNorm(loss, float(nn.utils.get_total_norm(gradients.values())))


def _numbers(
    dtype: torch.dtype, device: str, every: int = 0, keep: float | None = None
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one line of pairs; eager blocks if ``keep`` is None."""
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
