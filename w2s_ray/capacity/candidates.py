"""The layouts that a choice is made from, with the memory and time that each is predicted to take.

World sizes are 1, 2, 4 and so on up to one machine, then 2, 3, 4, 6, 8, 12 … whole machines. With
each come the ways of offloading, of recomputing blocks, the ZeRO stages and the micro-batches that
mean anything there, and that the spec does not fix otherwise.
"""

from collections.abc import Iterator
from dataclasses import replace

from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.layout import Constraints, Layout, Sharding, Workload
from w2s_ray.capacity.memory import Memory, Offload, training_bytes, warm_bytes
from w2s_ray.capacity.speed import batch_tokens, seconds_per_update
from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS, MICRO_BATCH_CANDIDATES

OFFLOADS: tuple[Offload, ...] = ("none", "optimizer", "parameters")


def candidates(
    workload: Workload, gpu: Gpu, constraints: Constraints
) -> Iterator[Iterator[Layout]]:
    """For each sharding that the constraints admit its layouts, the largest micro-batch first.

    A smaller micro-batch takes no more memory and no less time than a larger one: of each inner
    iterator, the first layout that fits is the best one.
    """
    for sharding in _shardings(gpu, constraints):
        yield _micro_batches(workload, gpu, constraints, sharding)


def _shardings(gpu: Gpu, constraints: Constraints) -> Iterator[Sharding]:
    offloads = OFFLOADS if constraints.offload is None else (constraints.offload,)
    fixed = constraints.activation_checkpointing
    for world in _worlds(gpu, constraints):
        for offload in offloads:
            for checkpointing in (False, True) if fixed is None else (fixed,):
                for stage in _stages(world, offload, constraints):
                    yield Sharding(world, stage, offload, checkpointing)


def _worlds(gpu: Gpu, constraints: Constraints) -> Iterator[int]:
    if constraints.workers is not None:
        yield constraints.workers
        return
    world, machine, most = 1, gpu.gpus_per_machine, constraints.max_workers
    while world < most:
        yield world
        if world < machine:
            world = min(2 * world, machine)
        else:
            world = machine * _next_count(world // machine)
    yield most


def _next_count(count: int) -> int:
    """The number of machines to try after ``count``: 1, 2, 3, 4, 6, 8, 12 …"""
    power = 1 << (count.bit_length() - 1)
    return 2 * power if count > power or count == 1 else power + power // 2


def _stages(world: int, offload: Offload, constraints: Constraints) -> tuple[int, ...]:
    """ZeRO stages to try. Only stage 3 can offload weights, or anything to a disk."""
    fixed = constraints.zero_stage
    needs_stage_3 = offload == "parameters" or (offload == "optimizer" and constraints.on_disk)
    if fixed is not None:
        return (fixed,) if fixed == 3 or not needs_stage_3 else ()
    if needs_stage_3:
        return (3,)
    if offload == "optimizer":
        return (2, 3) if world > 1 else (2,)
    return (1, 2, 3) if world > 1 else (0,)


def _micro_batches(
    workload: Workload, gpu: Gpu, constraints: Constraints, sharding: Sharding
) -> Iterator[Layout]:
    rows = -(-workload.batch_size // sharding.workers)
    share = rows * workload.longest_row  # tokens of a process's part of a batch, at most
    for budget in _budgets(workload, constraints, share):
        memory = training_bytes(
            workload.shape,
            precision=workload.precision,
            stage=sharding.zero_stage,
            world=sharding.workers,
            tokens=max(workload.longest_row, min(budget, share)),
            trainable=workload.trainable,
            adapters=workload.adapters,
            anchored=workload.anchored,
            offload=sharding.offload,
            checkpointing=sharding.activation_checkpointing,
            micro_batches=1 if share <= budget else 2,
            scoring_tokens=INFERENCE_TOKENS["cuda"],
        )
        seconds = seconds_per_update(
            workload.shape,
            gpu,
            precision=workload.precision,
            tokens=batch_tokens(workload.batch_size, workload.row_tokens, sharding.workers),
            row_tokens=workload.row_tokens,
            world=sharding.workers,
            stage=sharding.zero_stage,
            micro_batch_tokens=budget,
            trainable=workload.trainable,
            offload=sharding.offload,
            recomputed=sharding.activation_checkpointing,
            on_disk=constraints.on_disk,
        )
        yield Layout(*sharding, budget, with_warm_copy(memory, workload), seconds)


def _budgets(workload: Workload, constraints: Constraints, share: int) -> list[int]:
    """Micro-batch budgets in tokens, without those that ``share`` tokens would not fill."""
    if constraints.micro_batch_tokens is not None:
        return [constraints.micro_batch_tokens]
    longest = workload.longest_row
    budgets = [tokens for tokens in MICRO_BATCH_CANDIDATES if tokens >= longest] or [longest]
    while len(budgets) > 1 and budgets[1] >= share:
        budgets.pop(0)
    return budgets


def with_warm_copy(memory: Memory, workload: Workload) -> Memory:
    """The memory together with the copy that ``models.warm`` keeps of a small model."""
    total = memory.total + warm_bytes(workload.shape, workload.precision)
    return replace(memory, total=total)
