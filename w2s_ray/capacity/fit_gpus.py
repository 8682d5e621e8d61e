"""On how many GPUs, and how, a model is trained: the smallest world and the mildest way that fit.

The order is: fewer processes before more; in a world ZeRO 1 before 2 before 3 without computing
anything again, then the same with activation checkpointing; what is offloaded last, and only if no
world up to ``max_workers`` fits without. In each way a pass is as long as fits. What the spec fixes
is not looked for; what it fixes and cannot fit is refused with what would.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from w2s_ray.capacity.gpu_types import Gpu, gpu_types
from w2s_ray.capacity.memory import Memory, Offload, inference_bytes, training_bytes, warm_bytes
from w2s_ray.errors import InputError

if TYPE_CHECKING:
    from w2s_ray.catalog.architecture import Shape

PASSES = (16_384, 8_192, 4_096, 2_048, 1_024, 512, 256, 128)  # tokens of a pass, tried in turn
SCORED = 32_768  # tokens of a pass without gradients on a GPU (``models.inference``)
OFFLOADS: tuple[Offload, ...] = ("none", "optimizer", "parameters")


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be trained.

    Attributes:
        name: of the model, in the spec.
        adapters: LoRA parameters that are trained at once.
        longest_row: tokens of the longest row that can be.
    """

    name: str
    shape: "Shape"
    precision: str
    trainable: str
    batch_size: int
    longest_row: int
    adapters: int = 0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the spec fixes (None: to be chosen), and within what the choice must stay."""

    workers: int | None = None
    max_workers: int = 64
    zero_stage: int | None = None
    offload: Offload | None = None
    activation_checkpointing: bool | None = None
    micro_batch_tokens: int | None = None
    margin: float = 0.1
    on_disk: bool = False  # what is offloaded lies on a disk


@dataclass(frozen=True, slots=True)
class Placement:
    """How one training step is run."""

    workers: int
    zero_stage: int
    offload: Offload
    activation_checkpointing: bool
    micro_batch_tokens: int
    memory: Memory
    why: str = ""

    def __str__(self) -> str:
        ways = [f"workers: {self.workers}"]
        if self.workers > 1 or self.offload != "none":
            ways.append(f"zero_stage: {self.zero_stage}")
        if self.offload != "none":
            host = _gib(self.memory.host)
            ways.append(f"offload: {self.offload} ({host} of host memory a worker)")
        if self.activation_checkpointing:
            ways.append("activation_checkpointing: true")
        return ", ".join(ways)


def choose(work: Work, gpu: Gpu, wishes: Wishes) -> Placement:
    """The first way that fits.

    Raises:
        InputError: none does; its ``place`` is the field of ``execution`` to look at.
    """
    usable = gpu.usable(wishes.margin)
    tried: list[Placement] = []
    for placement in _ways(work, gpu, wishes):
        if placement.memory.total <= usable:
            return replace(placement, why=_why(placement, tried, gpu, wishes))
        tried.append(placement)
    raise _refusal(work, gpu, wishes, tried)


def check_inference(work: Work, gpu: Gpu, margin: float, kind: str) -> Memory:
    """What a ``features`` or ``label`` step needs, which one process runs.

    Raises:
        InputError: more than one GPU of the type holds.
    """
    memory = inference_bytes(work.shape, precision=work.precision, tokens=SCORED)
    memory = replace(memory, total=memory.total + warm_bytes(work.shape, work.precision))
    if memory.total > gpu.usable(margin):
        fitting = [
            other.name for other in gpu_types().values() if memory.total <= other.usable(margin)
        ]
        remedy = f"it fits {', '.join(fitting)}" if fitting else "no known GPU type holds it"
        raise InputError(
            f"execution.gpu_type: the {kind} step of model '{work.name}' runs in one process and "
            f"needs {_gib(memory.total)}, one {gpu.name} has {_gib(gpu.usable(margin))} to fill; "
            f"{remedy}",
            ("execution", "gpu_type"),
        )
    return memory


def _ways(work: Work, gpu: Gpu, wishes: Wishes) -> Iterator[Placement]:
    """All that the spec leaves open, in the order in which it is preferred."""
    offloads = OFFLOADS if wishes.offload is None else (wishes.offload,)
    again = (
        (False, True)
        if wishes.activation_checkpointing is None
        else (wishes.activation_checkpointing,)
    )
    for offload in offloads:
        for world in _worlds(gpu, wishes):
            for checkpointing in again:
                for stage in _stages(world, offload, wishes):
                    yield from _passes(work, wishes, world, stage, offload, checkpointing)


def _worlds(gpu: Gpu, wishes: Wishes) -> Iterator[int]:
    """1, 2, 4 and so on up to a machine, then whole machines."""
    if wishes.workers is not None:
        yield wishes.workers
        return
    world = 1
    while world < wishes.max_workers:
        yield world
        world += min(world, gpu.a_machine)
    yield wishes.max_workers


def _stages(world: int, offload: Offload, wishes: Wishes) -> tuple[int, ...]:
    """Stages 1 and 2 offload no weights, and nothing to a disk: they would keep it in memory."""
    fixed = wishes.zero_stage
    third = offload == "parameters" or (offload == "optimizer" and wishes.on_disk)
    if fixed is not None:
        return (fixed,) if fixed == 3 or not third else ()
    if third:
        return (3,)
    if offload == "optimizer":
        return (2, 3) if world > 1 else (2,)
    return (1, 2, 3) if world > 1 else (0,)


def _passes(
    work: Work, wishes: Wishes, world: int, stage: int, offload: Offload, checkpointing: bool
) -> Iterator[Placement]:
    whole = -(-work.batch_size // world) * work.longest_row  # a batch's share, if rows are longest
    if wishes.micro_batch_tokens is not None:
        budgets = [wishes.micro_batch_tokens]
    else:
        budgets = [tokens for tokens in PASSES if tokens >= work.longest_row] or [work.longest_row]
        while len(budgets) > 1 and budgets[1] >= whole:  # a longer pass would not be filled
            budgets.pop(0)
    for budget in budgets:
        memory = training_bytes(
            work.shape,
            precision=work.precision,
            stage=stage,
            world=world,
            tokens=max(work.longest_row, min(budget, whole)),
            trainable=work.trainable,
            adapters=work.adapters,
            offload=offload,
            checkpointing=checkpointing,
            passes=1 if whole <= budget else 2,
            scored=SCORED,
        )
        memory = replace(memory, total=memory.total + warm_bytes(work.shape, work.precision))
        yield Placement(world, stage, offload, checkpointing, budget, memory)


def _why(chosen: Placement, tried: list[Placement], gpu: Gpu, wishes: Wishes) -> str:
    usable = _gib(gpu.usable(wishes.margin))
    if not tried:
        fixed = " as the spec says" if wishes.workers is not None else ""
        return f"fits one {gpu.name}" if chosen.workers == 1 else f"fits{fixed}"
    fewer = [other for other in tried if other.workers < chosen.workers]
    if chosen.offload != "none" and wishes.offload is None:
        return f"nothing up to {wishes.max_workers} GPUs fits without offload"
    if fewer:
        best = min(fewer, key=lambda other: other.memory.total)
        return f"{best.workers} would need {_gib(best.memory.total)} of {usable} each"
    last = min(tried, key=lambda other: other.memory.total)
    if last.zero_stage != chosen.zero_stage:
        return f"ZeRO {last.zero_stage} would need {_gib(last.memory.total)} of {usable}"
    if chosen.activation_checkpointing and not last.activation_checkpointing:
        return f"activations would need {_gib(last.memory.activations)}"
    return f"passes of {last.micro_batch_tokens:,} tokens would need {_gib(last.memory.total)}"


def _refusal(work: Work, gpu: Gpu, wishes: Wishes, tried: list[Placement]) -> InputError:
    best = min(tried, key=lambda placement: placement.memory.total)
    field = next(
        (
            name
            for name in (
                "workers",
                "zero_stage",
                "offload",
                "activation_checkpointing",
                "micro_batch_tokens",
            )
            if getattr(wishes, name) is not None
        ),
        "max_workers",
    )
    given = getattr(wishes, field)
    given = {True: "true", False: "false"}.get(given, given) if isinstance(given, bool) else given
    return InputError(
        f"execution.{field}: given {given}, model '{work.name}' ({work.trainable}) needs "
        f"{_gib(best.memory.total)} on each GPU at best ({best}), one {gpu.name} has "
        f"{_gib(gpu.usable(wishes.margin))} to fill; {_remedy(work, gpu, wishes)}",
        ("execution", field),
    )


def _remedy(work: Work, gpu: Gpu, wishes: Wishes) -> str:
    """What would fit: the spec with one wish after the other given up, or another GPU."""
    released = [
        replace(wishes, micro_batch_tokens=None),
        replace(wishes, micro_batch_tokens=None, activation_checkpointing=None),
        replace(wishes, micro_batch_tokens=None, activation_checkpointing=None, zero_stage=None),
        Wishes(margin=wishes.margin, max_workers=wishes.max_workers, offload="none"),
        Wishes(margin=wishes.margin, max_workers=1024, offload="none"),
        Wishes(margin=wishes.margin, max_workers=1024, on_disk=wishes.on_disk),
    ]
    for looser in released:
        for placement in _ways(work, gpu, looser):
            if placement.memory.total <= gpu.usable(wishes.margin):
                tokens = (
                    f", micro_batch_tokens: {placement.micro_batch_tokens}"
                    if wishes.micro_batch_tokens is not None
                    else ""
                )
                return f"what fits: {placement}{tokens}"
    larger = [
        other.name
        for other in gpu_types().values()
        if any(p.memory.total <= other.usable(wishes.margin) for p in _ways(work, other, Wishes()))
    ]
    return f"what fits: gpu_type: {' or '.join(larger)}" if larger else "no known GPU type fits"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
