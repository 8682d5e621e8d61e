"""Picks world size, ZeRO stage, offload and micro-batch: the best layout that fits.

A layout fits when its predicted peak (``memory``) is within a GPU's usable memory, and what it
offloads within its process's part of the machine's memory. Of those that fit, the one is chosen
that minimises what the spec prefers: GPU time (``cost``: on machines of one type what is paid is
proportional to it), wall clock (``time``) or GPUs (``gpus``), as ``speed`` predicts them. What the
spec fixes stays as it is; a spec that fixes what cannot fit is refused, and the message names a
layout that fits.
"""

from dataclasses import replace
from typing import NamedTuple

from w2s_ray.capacity.candidates import OFFLOADS, candidates, with_warm_copy
from w2s_ray.capacity.gpu_types import Gpu, gpu_types
from w2s_ray.capacity.layout import Constraints, Layout, Workload, figure
from w2s_ray.capacity.memory import Memory, gib, inference_bytes
from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS
from w2s_ray.errors import InputError

LARGEST_WORLD = 1024  # GPUs of the largest layout that a refusal proposes


def choose_layout(workload: Workload, gpu: Gpu, constraints: Constraints) -> Layout:
    """The layout that fits within the constraints and minimises ``constraints.prefer``.

    Raises:
        InputError: none fits; its ``place`` is the field of ``execution`` to change.
    """
    fitting: list[Layout] = []
    rejected: list[Layout] = []
    for layouts in candidates(workload, gpu, constraints):
        for layout in layouts:
            if _fits(layout, gpu, constraints):
                fitting.append(layout)
                break
            rejected.append(layout)
    if not fitting:
        raise _refusal(workload, gpu, constraints, rejected)
    best = min(fitting, key=lambda layout: _rank(layout, constraints))
    return replace(best, why=_why(best, fitting, rejected, gpu, constraints))


class Inference(NamedTuple):
    """How a step that runs the backbone forward is placed.

    Attributes:
        gpus: of one machine, over which its process splits the model.
        memory: of the fullest of them.
        why: why more than one; None: one suffices.
    """

    gpus: int
    memory: Memory
    why: str | None = None


def fit_inference(workload: Workload, gpu: Gpu, margin: float, kind: str) -> Inference:
    """The fewest GPUs of a machine that hold a step that runs the backbone forward.

    Args:
        kind: features, label or predict; untrained, which has the output head too; or reward,
            which also has the model as it was before its training, both on one GPU.

    Raises:
        InputError: it exceeds what they have.
    """

    def memory(gpus: int) -> Memory:
        needed = inference_bytes(
            workload.shape,
            precision=workload.precision,
            tokens=INFERENCE_TOKENS["cuda"],
            language_model=kind in ("untrained", "reward"),
            gpus=gpus,
        )
        if kind == "reward":
            more = needed.weights
            return replace(needed, weights=needed.weights + more, total=needed.total + more)
        return with_warm_copy(needed, workload) if gpus == 1 else needed

    usable, alone = gpu.usable(margin), memory(1)
    if alone.total <= usable:
        return Inference(1, alone)
    needs = f"needs {gib(alone.total)}, one {gpu.name} has {gib(usable)} usable"
    most = 1 if kind == "reward" else min(gpu.gpus_per_machine, workload.shape.layers)
    for gpus in range(2, most + 1):
        if memory(gpus).total <= usable:
            return Inference(gpus, memory(gpus), f"blocks over {gpus} GPUs of a machine: {needs}")
    fitting = [other.name for other in gpu_types().values() if alone.total <= other.usable(margin)]
    remedy = f"it fits {', '.join(fitting)}" if fitting else "no listed GPU type holds it"
    raise InputError(
        f"execution.gpu_type: the {kind} step of model '{workload.name}' runs in one process and "
        f"{needs}{f' and a machine has {most}' * (kind != 'reward')}; {remedy}",
        ("execution", "gpu_type"),
    )


def _fits(layout: Layout, gpu: Gpu, constraints: Constraints) -> bool:
    in_gpu = layout.memory.total <= gpu.usable(constraints.margin)
    return in_gpu and layout.memory.host <= _usable_host(layout, gpu, constraints)


def _usable_host(layout: Layout, gpu: Gpu, constraints: Constraints) -> float:
    """Bytes of host memory for what one process offloads."""
    if constraints.on_disk or layout.offload == "none":
        return float("inf")
    return gpu.usable_host(constraints.margin, layout.workers, constraints.steps_at_once)


def _rank(layout: Layout, constraints: Constraints) -> tuple[float, ...]:
    """What is minimised; ties go to fewer GPUs, then to the plainer layout."""
    preferred = {
        "cost": layout.gpu_seconds,
        "time": layout.seconds,
        "gpus": float(layout.workers),
    }[constraints.prefer]
    return (
        preferred,
        layout.workers,
        layout.seconds,
        OFFLOADS.index(layout.offload),
        layout.activation_checkpointing,
        layout.zero_stage,
        -layout.micro_batch_tokens,
    )


def _why(
    best: Layout,
    fitting: list[Layout],
    rejected: list[Layout],
    gpu: Gpu,
    constraints: Constraints,
) -> str:
    """The choice against the best one of fewer GPUs, or else against the next best one."""
    others = [other for other in fitting if _differ(other, best)]
    if not others:
        return _only(best, rejected, gpu, constraints)
    fewer = [other for other in others if other.workers < best.workers]
    second = min(fewer or others, key=lambda layout: _rank(layout, constraints))
    by_cost = constraints.prefer == "cost"
    spent = [each.gpu_seconds if by_cost else each.seconds for each in (best, second)]
    unit = "GPU-seconds" if by_cost else "s"
    none = (
        "; fewer do not fit" if best.workers > 1 and not fewer and not constraints.workers else ""
    )
    return f"{figure(spent[0])} {unit} an update; {second.gpus}: {figure(spent[1])}{none}"


def _differ(one: Layout, other: Layout) -> bool:
    """Whether two layouts differ in their GPUs, or in one of them offloading."""
    return one.workers != other.workers or (one.offload == "none") != (other.offload == "none")


def _only(best: Layout, rejected: list[Layout], gpu: Gpu, constraints: Constraints) -> str:
    """Why there was no other choice: what the nearest one would need."""
    others = [other for other in rejected if _differ(other, best)]
    if not others:
        return "fits, as the spec says" if constraints.workers else f"fits one {gpu.name}"
    nearest = _nearest(others, gpu, constraints)
    return f"{nearest.gpus} would need {_needs(nearest, gpu, constraints)}"


def _needs(layout: Layout, gpu: Gpu, constraints: Constraints) -> str:
    """What a layout that does not fit needs, and what there is."""
    usable = gpu.usable(constraints.margin)
    if layout.memory.total > usable:
        return f"{gib(layout.memory.total)} of {gib(usable)} each"
    host = max(0.0, _usable_host(layout, gpu, constraints))
    return f"{gib(layout.memory.host)} of {gib(int(host))} host memory each"


def _nearest(layouts: list[Layout], gpu: Gpu, constraints: Constraints) -> Layout:
    """The layout that exceeds what there is by the smallest factor."""

    def excess(layout: Layout) -> float:
        host = layout.memory.host / max(1.0, _usable_host(layout, gpu, constraints))
        return max(layout.memory.total / gpu.usable(constraints.margin), host)

    return min(layouts, key=excess)


def _refusal(
    workload: Workload, gpu: Gpu, constraints: Constraints, rejected: list[Layout]
) -> InputError:
    best = _nearest(rejected, gpu, constraints)
    field = _tightest_field(constraints)
    given = getattr(constraints, field)
    given = str(given).lower() if isinstance(given, bool) else given
    needs = f"{gib(best.memory.total)} on each GPU at best ({best}), one {gpu.name} has "
    needs += f"{gib(gpu.usable(constraints.margin))} usable"
    host = _usable_host(best, gpu, constraints)
    if best.memory.host > host:
        needs += f", one {gpu.machine} {gib(max(0, int(host)))} of memory for each worker"
    return InputError(
        f"execution.{field}: given {given}, model '{workload.name}' ({workload.trainable}) needs "
        f"{needs}; {_remedy(workload, gpu, constraints)}",
        ("execution", field),
    )


def _tightest_field(constraints: Constraints) -> str:
    """The first field that the spec fixes, by how much it restricts the choice."""
    fields = (
        "workers",
        "zero_stage",
        "offload",
        "activation_checkpointing",
        "micro_batch_tokens",
    )
    fixed = (field for field in fields if getattr(constraints, field) is not None)
    return next(fixed, "max_workers")


def _remedy(workload: Workload, gpu: Gpu, constraints: Constraints) -> str:
    """The best layout that fits after one constraint after the other is relaxed, or another GPU."""
    for relaxed in _relaxed(constraints):
        if layout := _best(workload, gpu, relaxed):
            fixed = constraints.micro_batch_tokens is not None
            tokens = f", micro_batch_tokens: {layout.micro_batch_tokens}" if fixed else ""
            return f"what fits: {layout}{tokens}"
    anything = Constraints(margin=constraints.margin)
    larger = [other.name for other in gpu_types().values() if _best(workload, other, anything)]
    return f"what fits: gpu_type: {' or '.join(larger)}" if larger else "no listed GPU type fits"


def _best(workload: Workload, gpu: Gpu, constraints: Constraints) -> Layout | None:
    """The layout to choose; None where none fits."""
    fitting = [
        layout
        for layouts in candidates(workload, gpu, constraints)
        for layout in layouts
        if _fits(layout, gpu, constraints)
    ]
    return min(fitting, key=lambda layout: _rank(layout, constraints), default=None)


def _relaxed(constraints: Constraints) -> list[Constraints]:
    """The constraints with more and more of them dropped."""
    free_micro_batch = replace(constraints, micro_batch_tokens=None)
    free_checkpointing = replace(free_micro_batch, activation_checkpointing=None)
    free_stage = replace(free_checkpointing, zero_stage=None)
    free_world = replace(free_stage, workers=None, offload="none", on_disk=False)
    larger_world = replace(free_world, max_workers=LARGEST_WORLD)
    return [
        free_micro_batch,
        free_checkpointing,
        free_stage,
        free_world,
        larger_world,
        replace(larger_world, offload=None, on_disk=constraints.on_disk),
    ]
