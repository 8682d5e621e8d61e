"""How long a plan takes on the GPUs that there are, with all that is not computing.

Processes start, read weights and compile; a model is downloaded once to every machine; machines
start. How long that takes is assumed. A plan takes at least as long as its longest chain of steps,
and as all its GPU time divided by the GPUs; how steps happen to fit beside each other is left out.
"""

from collections.abc import Mapping
from typing import NamedTuple

from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.memory import BYTES_PER_WEIGHT
from w2s_ray.capacity.speed import Time
from w2s_ray.catalog.shapes import shape
from w2s_ray.plan.configs import Precision
from w2s_ray.plan.step import Step
from w2s_ray.spec.inputs import ModelSpec

PROCESS_SECONDS = 15.0  # to compile, in a process that runs already
GROUP_SECONDS = 45.0  # to start the processes of a group and connect them, and to compile
READING = 1e9  # bytes of weights per second from a disk
DOWNLOAD = 1e8  # bytes per second from the Hub
MACHINE_SECONDS = 300.0  # to start a machine and install on it


class WallClock(NamedTuple):
    """Hours of a plan.

    Attributes:
        gpus: that work at once.
        hours: until all is done.
        chain_hours: of the longest chain of steps, below which no number of GPUs comes.
        start_gpu_hours: GPU time that goes before steps compute: of machines, processes, weights.
    """

    gpus: int
    hours: float
    chain_hours: float
    start_gpu_hours: float


def wall_clock(
    todo: Mapping[str, Step],
    predicted: Mapping[str, Time | None],
    precision: Precision,
    gpu: Gpu,
    machines: int | None,
) -> WallClock:
    """The hours of ``todo``, each step after its inputs.

    Args:
        predicted: time of the steps that run a backbone, by key; those of none count nothing.
        machines: that there may be; None: as many as the largest step needs.
    """
    running = {key: time for key in todo if (time := predicted.get(key)) is not None}
    if not running:
        return WallClock(0, 0.0, 0.0, 0.0)
    largest = max(todo[key].execution.devices for key in running)
    needed = -(-largest // gpu.gpus_per_machine)
    gpus = max(needed, machines or 0) * gpu.gpus_per_machine
    backbones = {model for key in running if (model := todo[key].backbone) is not None}
    weights = {model: _weights(model, precision) for model in backbones}
    ends: dict[str, float] = {}
    computing = starting = 0.0
    for key, step in todo.items():
        ends[key] = max((ends.get(other, 0.0) for other in step.inputs.values()), default=0.0)
        time = running.get(key)
        if time is not None and step.backbone is not None:
            ready = GROUP_SECONDS if step.execution.uses_deepspeed else PROCESS_SECONDS
            start = ready + weights[step.backbone] / READING
            ends[key] += start + time.seconds
            starting += start * step.execution.devices
            computing += time.gpu_seconds
    from_hub = (each for model, each in weights.items() if (model.source or "").startswith("hf:"))
    downloading = sum(from_hub) / DOWNLOAD
    before, chain = MACHINE_SECONDS + downloading, max(ends.values())
    return WallClock(
        gpus=gpus,
        hours=(before + max(chain, (computing + starting) / gpus)) / 3600,
        chain_hours=(before + chain) / 3600,
        start_gpu_hours=(starting + gpus * before) / 3600,
    )


def _weights(model: ModelSpec, precision: Precision) -> float:
    """Bytes of the weights of a backbone; 0 where its shape is not known."""
    known = shape(model)
    return 0.0 if known is None else float(known.parameters * BYTES_PER_WEIGHT[precision])
