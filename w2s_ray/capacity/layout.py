"""What is planned: a training to run, the limits of the choice, and one way to run it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from w2s_ray.capacity.memory import Memory, Offload, gib

if TYPE_CHECKING:
    from w2s_ray.catalog.shapes import Shape

Prefer = Literal["cost", "time", "gpus"]


def figure(value: float) -> str:
    """A number with two digits, or with all those before the point."""
    return f"{value:.2g}" if value < 99.5 else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class Workload:
    """The training to find a layout for.

    Attributes:
        name: name of the model in the spec.
        shape: dimensions of the model.
        precision: bf16 or fp32, of the model's weights.
        trainable: full, lora or last_layer.
        batch_size: rows of one optimizer step, over all processes.
        longest_row: tokens of the longest row that the spec admits; memory must suffice for it.
        row_tokens: mean tokens of a row, for which times are predicted.
        adapters: LoRA parameters that are trained at once.
        anchored: whether the initial weights are kept.
    """

    name: str
    shape: "Shape"
    precision: str
    trainable: str
    batch_size: int
    longest_row: int
    row_tokens: float
    adapters: int = 0
    anchored: bool = False


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the spec fixes (None: free to choose), and the limits of the choice.

    Attributes:
        prefer: what is minimised: GPU time, wall clock, or the number of GPUs.
        max_workers: largest world size to consider where ``workers`` is None.
        margin: share of a GPU's memory, and of a machine's, that stays free.
        on_disk: offloaded state goes to a disk, not to host memory.
        steps_at_once: how many steps share the machines; None: as many as fit.
    """

    prefer: Prefer = "cost"
    workers: int | None = None
    max_workers: int = 64
    zero_stage: int | None = None
    offload: Offload | None = None
    activation_checkpointing: bool | None = None
    micro_batch_tokens: int | None = None
    margin: float = 0.1
    on_disk: bool = False
    steps_at_once: int | None = None


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
        seconds: predicted wall clock of an update.
        why: why this layout and no other, for people.
    """

    workers: int
    zero_stage: int
    offload: Offload
    activation_checkpointing: bool
    micro_batch_tokens: int
    memory: Memory
    seconds: float
    why: str = ""

    @property
    def gpu_seconds(self) -> float:
        """GPU time of an update, which is what is paid."""
        return self.workers * self.seconds

    @property
    def gpus(self) -> str:
        """World size and offload in words, ``8 GPUs with optimizer offloaded``."""
        count = "1 GPU" if self.workers == 1 else f"{self.workers} GPUs"
        return count if self.offload == "none" else f"{count} with {self.offload} offloaded"

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
