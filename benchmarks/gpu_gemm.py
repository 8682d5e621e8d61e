"""The rate of bf16 matrix products on this device, to which ``gpu_train.py`` relates its model's.

Products of random data, median of many after a warm-up; on a GPU timed by CUDA events.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn


def square_rate(size: int, device: str, seconds: float) -> float:
    """FLOP/s of a size³ product."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    return 2.0 * size**3 / _seconds(partial(torch.mm, a, b, out=out), device, seconds)


def block_rate(block: nn.Module, tokens: int, device: str, seconds: float) -> float:
    """FLOP/s of forward, input gradient and weight gradient of all linear layers of a block."""
    weights = [m.weight.detach() for m in block.modules() if isinstance(m, nn.Linear)]
    widths = {width for weight in weights for width in weight.shape}
    lines = {w: torch.randn(tokens, w, device=device).bfloat16() for w in widths}
    flops = 6.0 * tokens * sum(weight.numel() for weight in weights)
    return flops / _seconds(partial(_products, weights, lines), device, seconds)


@torch.inference_mode()
def _products(weights: Sequence[Tensor], lines: Mapping[int, Tensor]) -> None:
    """The three products of each weight, with the (T, width) operands in ``lines``."""
    for weight in weights:
        outputs, inputs = weight.shape
        x, gradient = lines[inputs], lines[outputs]
        nn.functional.linear(x, weight)
        gradient @ weight
        gradient.T @ x


def _seconds(run: Callable[[], object], device: str, seconds: float) -> float:
    """Median time of one call over as many as fit in ``seconds``, at least three."""
    run()
    wall = time.perf_counter()
    taken: list[float] = []
    while len(taken) < 3 or time.perf_counter() - wall < seconds:
        if device == "cuda":
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(11)]
            marks[0].record()
            for mark in marks[1:]:
                run()
                mark.record()
            torch.cuda.synchronize()
            pairs = pairwise(marks)
            taken += [a.elapsed_time(b) / 1000 for a, b in pairs]
        else:
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return median(taken)
