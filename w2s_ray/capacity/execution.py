"""How a step is run, with nothing left to choose. Never part of a key."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from w2s_ray.capacity.memory import Offload

Device = Literal["cpu", "gpu"]

THREADS = "OMP_NUM_THREADS"  # by which a user fixes the threads of torch in the environment


@dataclass(frozen=True, slots=True)
class Execution:
    """The resolved ``execution`` of one step; the spec's fields, and what the planner adds.

    The defaults are those of a step that needs nothing: one process, one CPU.

    Attributes:
        workers: world size.
        inference_workers: processes that compute features or labels together, each with the whole
            model; 1 of a step that trains.
        inference_gpus: GPUs of one machine over which each of these processes splits the model.
        min_workers: smallest world size to resume with after losing nodes; None: ``workers``.
        zero_stage: DeepSpeed ZeRO stage; ignored unless ``uses_deepspeed``.
        offload_path: folder on a local NVMe disk for offloaded state; None: host memory.
        micro_batch_tokens: tokens of one micro-batch on one worker; None: the device's default.
        decoded_rows: rows that generate text together; None: ``DECODED_ROWS``, and no more than
            ``DECODED_TOKENS`` in their caches.
        checkpoint_steps, checkpoint_minutes: interval between checkpoints; None: not by this rule.
        cpus_per_worker, gpus_per_worker: resources of each process; fractions share a device.
        lora_together: LoRA students that may be fused into one group.
        keep_models, export_models: roles whose weights stay, or are exported.
        train_predictions: whether students and ceilings score the students' training rows.
        predicted_memory_bytes: predicted peak on each GPU; None: not predicted.
        layout_reason: why this layout and no other; None: nothing was chosen.
    """

    gpu_type: str | None = None
    workers: int = 1
    inference_workers: int = 1
    inference_gpus: int = 1
    min_workers: int | None = None
    zero_stage: int = 0
    offload: Offload = "none"
    offload_path: str | None = None
    activation_checkpointing: bool = False
    micro_batch_tokens: int | None = None
    decoded_rows: int | None = None
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    lora_together: int = 1
    keep_models: tuple[str, ...] = ()
    export_models: tuple[str, ...] = ()
    train_predictions: bool = False
    predicted_memory_bytes: int | None = None
    layout_reason: str | None = None

    @property
    def processes(self) -> int:
        """How many compute the step at once."""
        return max(self.workers, self.inference_workers)

    @property
    def is_pooled(self) -> bool:
        """Whether processes of their own compute features or labels, several or larger ones."""
        return self.inference_workers > 1 or self.inference_gpus > 1

    @property
    def devices(self) -> int:
        """GPUs that the step takes, where each process of a step has one."""
        return self.processes * self.inference_gpus

    @property
    def uses_deepspeed(self) -> bool:
        """Whether training needs DeepSpeed: several workers, or state outside of the GPU."""
        return self.workers > 1 or self.offload != "none"

    @property
    def is_sharded(self) -> bool:
        """Whether every worker loads only its shard of the weights (ZeRO-3)."""
        return self.uses_deepspeed and self.zero_stage == 3

    @property
    def device(self) -> Device:
        """The device that each process is given."""
        return "gpu" if self.gpus_per_worker > 0 else "cpu"

    def as_json(self) -> Mapping[str, Any]:
        """JSON values by field, for a record."""
        return {name: getattr(self, name) for name in _FIELDS}


_FIELDS = tuple(field.name for field in fields(Execution))
