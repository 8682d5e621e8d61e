"""Predicted time of steps on GPUs of a type, from counts of operations and bytes.

Operations run at the share of the GPU's peak that ``gpu_types.json`` assumes, but no faster than
weights can be read from memory. Added to that are the bytes that ZeRO sends between GPUs, within a
machine or at the rate of the network between machines, those that offloading moves between GPU and
host memory, and those that an update moves through memory; nothing overlaps. Left out is Python's
overhead, which dominates for small models. The estimate is good to an order of magnitude and for
comparing layouts.
"""

import math
from dataclasses import dataclass

from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.memory import BYTES_PER_WEIGHT
from w2s_ray.capacity.token_budgets import MICRO_BATCH_TOKENS
from w2s_ray.catalog.shapes import Shape

HOST_LINK = 20e9  # bytes per second from a GPU to host memory and back (PCIe 4 x16, in practice)
HOST_MEMORY = 50e9  # bytes per second that one process's update moves in host memory, at most
MACHINE_MEMORY = 300e9  # bytes per second that all processes of a machine move together
DISK = 4e9  # bytes per second that its NVMe disks read and write together


@dataclass(frozen=True, slots=True)
class Time:
    """Predicted time of one plan step.

    Attributes:
        seconds_per_update: wall clock of one optimizer step; 0 where nothing is trained.
        gpu_seconds: of the whole step, summed over its processes.
        seconds: wall clock of the whole step, once it has started.
    """

    seconds_per_update: float
    gpu_seconds: float
    seconds: float


def flops_per_token(
    model: Shape, row_tokens: float, *, trainable: str = "full", recomputed: bool = False
) -> float:
    """Operations of forward and backward for one token: 6 N and attention's share.

    N excludes embeddings, which are look-ups, and the experts of other tokens. Frozen weights need
    no gradients of their own (4 N); recomputed blocks cost a second forward (2 N more).
    """
    attention = 2 * model.layers * model.heads * model.head_width * row_tokens  # causal: half
    forward = 2.0 * model.matrices + attention
    sweeps = 3.0 if trainable == "full" else 2.0
    return forward * (sweeps + recomputed)


def seconds_per_update(
    model: Shape,
    gpu: Gpu,
    *,
    precision: str,
    tokens: float,
    row_tokens: float,
    world: int = 1,
    stage: int = 0,
    micro_batch_tokens: int = MICRO_BATCH_TOKENS["gpu"],
    trainable: str = "full",
    offload: str = "none",
    recomputed: bool = False,
    on_disk: bool = False,
) -> float:
    """Wall clock of one optimizer step.

    Args:
        precision: bf16 or fp32, of the weights.
        tokens: of the whole batch, over all processes.
        row_tokens: mean length of a row.
        world, stage: world size and ZeRO stage.
        micro_batch_tokens: of one process.
        trainable: full, or anything else for frozen weights with adapters.
        offload: none, or where the optimizer's state is updated in host memory.
        recomputed: activation checkpointing is on.
        on_disk: what is offloaded goes to the machine's disks.
    """
    width, own = BYTES_PER_WEIGHT[precision], tokens / world
    micro_batches = max(1, math.ceil(own / micro_batch_tokens))
    each = flops_per_token(model, row_tokens, trainable=trainable, recomputed=recomputed)
    matrices = model.parameters - model.embeddings
    read = micro_batches * (3 + recomputed) * width * matrices
    compute = max(each * own / (gpu.flops[precision] * gpu.utilization), read / gpu.bandwidth)
    sent = _sent_bytes(model, width, world, stage, micro_batches, trainable)
    sending = sent / (gpu.link if world <= gpu.gpus_per_machine else min(gpu.link, gpu.network))
    loaded = _loaded_bytes(model, width, world, offload, micro_batches, trainable)
    seconds = compute + sending + loaded / HOST_LINK
    if trainable != "full":  # adapters are too few to count
        return seconds
    # Masters and moments are read and written, gradients read, weights written.
    updated = 30 * model.parameters / world
    if offload == "none":
        return seconds + updated / gpu.bandwidth
    rate = min(HOST_MEMORY, (DISK if on_disk else MACHINE_MEMORY) / gpu.gpus_per_machine)
    return seconds + updated / rate


def batch_tokens(rows: int, row_tokens: float, world: int) -> float:
    """Tokens of a batch, as if every process had as many rows as the one that has the most."""
    return world * math.ceil(rows / world) * row_tokens


def _loaded_bytes(
    model: Shape, width: int, world: int, offload: str, micro_batches: int, trainable: str
) -> float:
    """Bytes between one process's GPU and host memory in an optimizer step.

    Sums of gradients go down after each micro-batch, and come up before the next one adds to them;
    updated weights come up. Offloaded weights come up for each forward and each backward pass.
    """
    if offload == "none":
        return 0.0
    share, full = model.parameters / world, trainable == "full"
    sums = 4 * (2 * micro_batches - 1) * share if full else 0.0
    if offload == "parameters":
        return sums + 2 * micro_batches * width * share
    return sums + width * share if full else 0.0


def _sent_bytes(
    model: Shape, width: int, world: int, stage: int, micro_batches: int, trainable: str
) -> float:
    """Bytes that one process sends in an optimizer step; 0 for a single process."""
    if world == 1:
        return 0.0
    part = (world - 1) / world * model.parameters
    gradients = 4 * part if trainable == "full" else 0.0
    if stage == 3:  # in each micro-batch weights gathered twice, gradients scattered
        return micro_batches * (2 * width * part + gradients)
    reductions = micro_batches if stage == 2 else 1  # all-reduced, by stage 2 in each micro-batch
    gathered = width * part if gradients else 0  # updated weights
    return reductions * 2 * gradients + gathered
