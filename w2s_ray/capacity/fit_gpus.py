"""Picks world size, ZeRO stage, offload and micro-batch: the cheapest layout that fits.

A layout fits when its predicted peak (``memory``) is within a GPU's usable memory. From cheapest to
most expensive: no offload before offload, which is considered only if no world size up to
``max_workers`` fits without it; fewer processes before more; in one world size, no activation
checkpointing before checkpointing; ZeRO 1 before 2 before 3. In each of these the micro-batch is as
large as fits. What the spec fixes stays as it is; a spec that fixes what cannot fit is refused, and
the message names a layout that fits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from w2s_ray.capacity.gpu_types import Gpu, gpu_types
from w2s_ray.capacity.memory import (
    Memory,
    Offload,
    gib,
    inference_bytes,
    training_bytes,
    warm_bytes,
)
from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS, MICRO_BATCH_CANDIDATES
from w2s_ray.errors import InputError

if TYPE_CHECKING:
    from w2s_ray.catalog.shapes import Shape

OFFLOADS: tuple[Offload, ...] = ("none", "optimizer", "parameters")
LARGEST_WORLD = 1024  # GPUs of the largest layout that a refusal proposes


@dataclass(frozen=True, slots=True)
class Workload:
    """The training to find a layout for.

    Attributes:
        name: name of the model in the spec.
        shape: dimensions of the model.
        precision: bf16 or fp32, of the model's weights.
        trainable: full, lora or last_layer.
        batch_size: rows of one optimizer step, over all processes.
        longest_row: tokens of the longest row that the spec admits.
        adapters: LoRA parameters that are trained at once.
        anchored: whether the initial weights are kept.
    """

    name: str
    shape: "Shape"
    precision: str
    trainable: str
    batch_size: int
    longest_row: int
    adapters: int = 0
    anchored: bool = False


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the spec fixes (None: free to choose), and the limits of the choice.

    Attributes:
        max_workers: largest world size to consider where ``workers`` is None.
        margin: share of a GPU's memory that stays free.
        on_disk: offloaded state goes to a disk, not to host memory.
    """

    workers: int | None = None
    max_workers: int = 64
    zero_stage: int | None = None
    offload: Offload | None = None
    activation_checkpointing: bool | None = None
    micro_batch_tokens: int | None = None
    margin: float = 0.1
    on_disk: bool = False


class Sharding(NamedTuple):
    """A layout without its micro-batch."""

    workers: int
    zero_stage: int
    offload: Offload
    activation_checkpointing: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """How one training step is run on GPUs.

    Attributes:
        workers: world size, one GPU each.
        memory: predicted bytes of each process.
        why: why no cheaper layout was chosen, for people.
    """

    workers: int
    zero_stage: int
    offload: Offload
    activation_checkpointing: bool
    micro_batch_tokens: int
    memory: Memory
    why: str = ""

    def __str__(self) -> str:
        settings = [f"workers: {self.workers}"]
        if self.workers > 1 or self.offload != "none":
            settings.append(f"zero_stage: {self.zero_stage}")
        if self.offload != "none":
            host = gib(self.memory.host)
            settings.append(f"offload: {self.offload} ({host} of host memory per worker)")
        if self.activation_checkpointing:
            settings.append("activation_checkpointing: true")
        return ", ".join(settings)


def choose_layout(workload: Workload, gpu: Gpu, constraints: Constraints) -> Layout:
    """The cheapest layout that fits within the constraints.

    Raises:
        InputError: none fits; its ``place`` is the field of ``execution`` to change.
    """
    usable = gpu.usable(constraints.margin)
    rejected: list[Layout] = []
    for layout in _layouts(workload, gpu, constraints):
        if layout.memory.total <= usable:
            return replace(layout, why=_why(layout, rejected, gpu, constraints))
        rejected.append(layout)
    raise _refusal(workload, gpu, constraints, rejected)


def check_inference(workload: Workload, gpu: Gpu, margin: float, kind: str) -> Memory:
    """The memory of a step that runs the backbone forward, in one process.

    Args:
        kind: features, label, predict or untrained, which has the output head too.

    Raises:
        InputError: it exceeds what one GPU of the type has.
    """
    memory = inference_bytes(
        workload.shape,
        precision=workload.precision,
        tokens=INFERENCE_TOKENS["cuda"],
        language_model=kind == "untrained",
    )
    memory = _with_warm_copy(memory, workload)
    if memory.total > gpu.usable(margin):
        fitting = [
            other.name for other in gpu_types().values() if memory.total <= other.usable(margin)
        ]
        remedy = f"it fits {', '.join(fitting)}" if fitting else "no listed GPU type holds it"
        raise InputError(
            f"execution.gpu_type: the {kind} step of model '{workload.name}' runs in one process "
            f"and needs {gib(memory.total)}, one {gpu.name} has {gib(gpu.usable(margin))} usable; "
            f"{remedy}",
            ("execution", "gpu_type"),
        )
    return memory


def _layouts(workload: Workload, gpu: Gpu, constraints: Constraints) -> Iterator[Layout]:
    """Every layout that the constraints admit, from cheapest to most expensive."""
    for sharding in _shardings(gpu, constraints):
        yield from _micro_batches(workload, constraints, sharding)


def _shardings(gpu: Gpu, constraints: Constraints) -> Iterator[Sharding]:
    offloads = OFFLOADS if constraints.offload is None else (constraints.offload,)
    fixed = constraints.activation_checkpointing
    for offload in offloads:
        for world in _worlds(gpu, constraints):
            for checkpointing in (False, True) if fixed is None else (fixed,):
                for stage in _stages(world, offload, constraints):
                    yield Sharding(world, stage, offload, checkpointing)


def _worlds(gpu: Gpu, constraints: Constraints) -> Iterator[int]:
    """World sizes: 1, 2, 4 and so on up to one machine, then whole machines."""
    if constraints.workers is not None:
        yield constraints.workers
        return
    world = 1
    while world < constraints.max_workers:
        yield world
        world += min(world, gpu.gpus_per_machine)
    yield constraints.max_workers


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
    workload: Workload, constraints: Constraints, sharding: Sharding
) -> Iterator[Layout]:
    """The layouts of one sharding, the largest micro-batch first."""
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
        yield Layout(*sharding, budget, _with_warm_copy(memory, workload))


def _budgets(workload: Workload, constraints: Constraints, share: int) -> list[int]:
    """Micro-batch budgets in tokens, without those that ``share`` tokens would not fill."""
    if constraints.micro_batch_tokens is not None:
        return [constraints.micro_batch_tokens]
    longest = workload.longest_row
    budgets = [tokens for tokens in MICRO_BATCH_CANDIDATES if tokens >= longest] or [longest]
    while len(budgets) > 1 and budgets[1] >= share:
        budgets.pop(0)
    return budgets


def _with_warm_copy(memory: Memory, workload: Workload) -> Memory:
    total = memory.total + warm_bytes(workload.shape, workload.precision)
    return replace(memory, total=total)


def _why(chosen: Layout, rejected: list[Layout], gpu: Gpu, constraints: Constraints) -> str:
    usable = gib(gpu.usable(constraints.margin))
    if not rejected:
        fixed = " as the spec says" if constraints.workers is not None else ""
        return f"fits one {gpu.name}" if chosen.workers == 1 else f"fits{fixed}"
    if chosen.offload != "none" and constraints.offload is None:
        return f"nothing up to {constraints.max_workers} GPUs fits without offload"
    smaller = [other for other in rejected if other.workers < chosen.workers]
    if smaller:
        best = _smallest(smaller)
        return f"{best.workers} would need {gib(best.memory.total)} of {usable} each"
    nearest = _smallest(rejected)
    if nearest.zero_stage != chosen.zero_stage:
        return f"ZeRO {nearest.zero_stage} would need {gib(nearest.memory.total)} of {usable}"
    if chosen.activation_checkpointing and not nearest.activation_checkpointing:
        return f"activations would need {gib(nearest.memory.activations)}"
    tokens = f"{nearest.micro_batch_tokens:,}"
    return f"micro-batches of {tokens} tokens would need {gib(nearest.memory.total)}"


def _smallest(layouts: list[Layout]) -> Layout:
    return min(layouts, key=lambda layout: layout.memory.total)


def _refusal(
    workload: Workload, gpu: Gpu, constraints: Constraints, rejected: list[Layout]
) -> InputError:
    best = _smallest(rejected)
    field = _tightest_field(constraints)
    given = getattr(constraints, field)
    given = str(given).lower() if isinstance(given, bool) else given
    return InputError(
        f"execution.{field}: given {given}, model '{workload.name}' ({workload.trainable}) needs "
        f"{gib(best.memory.total)} on each GPU at best ({best}), one {gpu.name} has "
        f"{gib(gpu.usable(constraints.margin))} usable; {_remedy(workload, gpu, constraints)}",
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
    """The cheapest change that fits: one constraint after the other relaxed, or another GPU."""
    usable = gpu.usable(constraints.margin)
    for relaxed in _relaxed(constraints):
        for layout in _layouts(workload, gpu, relaxed):
            if layout.memory.total <= usable:
                tokens = (
                    f", micro_batch_tokens: {layout.micro_batch_tokens}"
                    if constraints.micro_batch_tokens is not None
                    else ""
                )
                return f"what fits: {layout}{tokens}"
    larger = [
        other.name
        for other in gpu_types().values()
        if any(
            layout.memory.total <= other.usable(constraints.margin)
            for layout in _layouts(workload, other, Constraints())
        )
    ]
    return f"what fits: gpu_type: {' or '.join(larger)}" if larger else "no listed GPU type fits"


def _relaxed(constraints: Constraints) -> list[Constraints]:
    """The constraints with more and more of them dropped."""
    margin, limit = constraints.margin, constraints.max_workers
    free_micro_batch = replace(constraints, micro_batch_tokens=None)
    free_checkpointing = replace(free_micro_batch, activation_checkpointing=None)
    return [
        free_micro_batch,
        free_checkpointing,
        replace(free_checkpointing, zero_stage=None),
        Constraints(margin=margin, max_workers=limit, offload="none"),
        Constraints(margin=margin, max_workers=LARGEST_WORLD, offload="none"),
        Constraints(margin=margin, max_workers=LARGEST_WORLD, on_disk=constraints.on_disk),
    ]
