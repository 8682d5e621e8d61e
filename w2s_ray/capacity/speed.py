"""How long steps take on GPUs of a type: an estimate from operations and bytes.

Operations at the share of the GPU's peak that ``gpu_types.json`` assumes, but no faster than
weights can be read from memory; then what ZeRO sends between GPUs, and the bytes that an update
moves through memory. Nothing is taken to overlap. Left out are start-up of processes, loading of
weights, and what Python costs small models. Good for an order of magnitude and for comparing ways.
"""

import math
from dataclasses import dataclass

from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.memory import WIDTH
from w2s_ray.catalog.architecture import Shape

HOST_LINK = 20e9  # bytes a second between a GPU and its host's memory (PCIe 4, 16 lanes, in use)
HOST_MEMORY = 50e9  # bytes a second that an update in host memory moves, a process


@dataclass(frozen=True, slots=True)
class Time:
    """Of one plan step; GPU seconds are summed over its processes."""

    seconds_an_update: float  # wall clock of one optimizer step; 0 where nothing is trained
    gpu_seconds: float


def flops_a_token(
    model: Shape, row_tokens: float, *, trainable: str = "full", recomputed: bool = False
) -> float:
    """Operations of forward and backward for one token: 6 N and attention's share.

    N without embeddings, which are looked up. Weights that are not trained need no gradients of
    their own (4 N); recomputed blocks cost a second forward (2 N more).
    """
    matrices = model.parameters - model.embeddings
    attention = 2 * model.layers * model.heads * model.head_width * row_tokens  # causal: half
    forward = 2.0 * matrices + attention
    passes = 3.0 if trainable == "full" else 2.0
    return forward * (passes + recomputed)


def seconds_an_update(
    model: Shape,
    gpu: Gpu,
    *,
    precision: str,
    tokens: float,
    row_tokens: float,
    world: int = 1,
    stage: int = 0,
    pass_tokens: int = 16_384,
    trainable: str = "full",
    offload: str = "none",
    recomputed: bool = False,
) -> float:
    """Wall clock of one optimizer step over ``tokens`` in all, ``pass_tokens`` a GPU at a time."""
    width, own = WIDTH[precision], tokens / world
    passes = max(1, math.ceil(own / pass_tokens))
    each = flops_a_token(model, row_tokens, trainable=trainable, recomputed=recomputed)
    read = passes * (3 + recomputed) * width * (model.parameters - model.embeddings)
    compute = max(each * own / (gpu.flops[precision] * gpu.utilization), read / gpu.bandwidth)
    sent = 0.0
    if world > 1:
        part = (world - 1) / world * model.parameters
        gradients = 4 * part if trainable == "full" else 0.0
        if stage == 3:  # weights gathered forward and backward, gradients scattered, in each pass
            sent = passes * (2 * width * part + gradients)
        else:  # all-reduced: of stage 2 in each pass; updated weights gathered
            sent = (passes if stage == 2 else 1) * 2 * gradients + (
                width * part if gradients else 0
            )
    compute += sent / (gpu.link if world <= gpu.a_machine else gpu.network)
    if trainable != "full":  # adapters are too few to count
        return compute
    share = model.parameters / world
    if offload == "none":  # masters and moments read and written, gradients read, weights written
        return compute + 30 * share / gpu.bandwidth
    return compute + 6 * share / HOST_LINK + 30 * share / HOST_MEMORY
