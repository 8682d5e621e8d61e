"""Where the time of one call goes on a GPU, by kind of kernel."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {  # the first whose word is in a kernel's name
    "attention": ("flex",),
    "products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "splitk"),
    "fused by inductor": ("triton_",),
    "update": ("multi_tensor", "adam"),
    "embedding": ("embedding", "index", "sort"),
    "copies": ("memcpy", "memset", "copy"),
}
LONGEST = 8  # kernels that are named


def kernel_milliseconds(run: Callable[[], object]) -> tuple[dict[str, float], list[str]]:
    """Milliseconds on the device by kind, and the longest kernels in words.

    What ``run`` waits for is left out: the sum beside the time of a step is what the device idles.
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
    words = [f"{spent:8.2f} ms {count:6d} × {name[:90]}" for spent, count, name in longest]
    return dict(kinds), words


def _kind(name: str) -> str:
    for kind, words in KINDS.items():
        if any(word in name.lower() for word in words):
            return kind
    return "other"
