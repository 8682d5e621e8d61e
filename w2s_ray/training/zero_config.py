"""DeepSpeed ZeRO settings of a run, and the configuration that DeepSpeed is given for them.

DeepSpeed itself is imported in ``deepspeed_engine`` only.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.memory import BUCKET_ELEMENTS


@dataclass(frozen=True)
class Zero:
    """How the state of a model is sharded over its ranks and offloaded.

    Attributes:
        stage: 0 keeps everything on every rank; 1 shards masters and moments, 2 gradients too,
            3 parameters too.
        offload: ``none``; ``optimizer``: masters and moments in host memory, where torch's fused
            Adam updates them; ``parameters``: with stage 3, the shards of the weights too.
        folder: on a local NVMe disk, takes what is offloaded instead of host memory (stage 3
            only; the other stages would ignore it). It belongs to this run and is removed when the
            engine is closed.
    """

    stage: int
    offload: str = "none"
    folder: str | None = None

    @classmethod
    def of(cls, execution: Execution, name: str) -> "Zero":
        """The settings in a step's execution; ``name`` keeps the files of runs apart."""
        path = execution.offload_path
        folder = os.path.join(path, name) if path else None
        return cls(execution.zero_stage, execution.offload, folder)


def deepspeed_config(
    zero: Zero, *, trained: int = 0, clip: float | None = None, largest_small: int = 0
) -> dict[str, Any]:
    """DeepSpeed's configuration.

    Args:
        trained: elements of all trained parameters.
        clip: norm to which gradients are clipped; None: they are not.
        largest_small: elements of the largest norm or bias.
    """
    bucket = max(2, min(trained + trained % 2, BUCKET_ELEMENTS))
    target: dict[str, Any] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if zero.folder is not None:
        target = {"device": "nvme", "nvme_path": zero.folder, "pin_memory": True}
    offload = {}
    if zero.offload != "none":
        offload["offload_optimizer"] = target
    if zero.offload == "parameters":
        offload["offload_param"] = target
    return {
        "train_micro_batch_size_per_gpu": 1,  # only for DeepSpeed's own statistics
        "gradient_accumulation_steps": 1,  # the engine says which micro-batch is the last
        "gradient_clipping": clip or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},
        "zero_optimization": {
            "stage": zero.stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            # Norms and biases stay whole on every rank; all matrices are sharded.
            "stage3_param_persistence_threshold": largest_small,
            **offload,
        },
    }
