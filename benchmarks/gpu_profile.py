"""GPU time of one call by kind of kernel."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {  # the first kind with a word that is in the kernel's name
    "attention": ("flex",),
    "products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "splitk"),
    "fused by inductor": ("triton_",),
    "update": ("multi_tensor", "adam"),
    "embedding": ("embedding", "index", "sort"),
    "copies": ("memcpy", "memset", "copy"),
}
LONGEST = 8  # kernels to list by name


class Profile(NamedTuple):
    """Kernels of one call.

    Attributes:
        milliseconds: device time by kind of kernel.
        longest: one line of text per kernel for the longest ones.
    """

    milliseconds: dict[str, float]
    longest: list[str]


def profile_kernels(run: Callable[[], object]) -> Profile:
    """Profile the kernels that ``run`` launches.

    Idle time is not included: it is the difference between the time of a step and the sum.
    """
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize()
    kinds: dict[str, float] = defaultdict(float)
    kernels = []
    for event in profiled.key_averages():
        if str(event.device_type).endswith("CUDA"):
            kernels.append((event.self_device_time_total / 1000, event.count, event.key))
            kinds[_kind(event.key)] += kernels[-1][0]
    longest = sorted(kernels, reverse=True)[:LONGEST]
    lines = [f"{spent:8.2f} ms {count:6d} × {name[:90]}" for spent, count, name in longest]
    return Profile(dict(kinds), lines)


def _kind(name: str) -> str:
    for kind, words in KINDS.items():
        if any(word in name.lower() for word in words):
            return kind
    return "other"
