"""Limits a process of the cluster to the CPUs and GPUs that Ray has assigned to it."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import ray

from w2s_ray.capacity.execution import THREADS
from w2s_ray.cluster.environment import LIBRARIES, OTHER_THREADS, set_defaults

TOPOLOGY = Path("/sys/devices/system/cpu")


def use_only(cpus: float, gpus: float, threads: int | None) -> None:
    """Limits this process to what Ray has assigned to it; called before it loads torch.

    Ray hides the GPUs of other processes, except from a process that has none: there all GPUs of
    the machine would stay visible.

    Args:
        threads: of torch, where the user has fixed them; None: ``threads`` shares the CPUs. Other
            libraries get as many as CPUs are reserved.
    """
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in OTHER_THREADS:
        os.environ[name] = str(threads or max(1, int(cpus)))
    os.environ.pop(THREADS, None)  # Ray's
    if threads is not None:
        os.environ[THREADS] = str(threads)
    set_defaults(LIBRARIES)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def machine_cpus() -> int:
    """CPUs of this machine that steps share: its cores, unless Ray was given fewer."""
    node = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    declared = [entry["Resources"].get("CPU", 0) for entry in nodes if entry["NodeID"] == node]
    return max(1, min(_cores(), int(max(declared, default=0))))


def _cores() -> int:
    """Cores that this process may use; hyperthreads of one core are counted once, as by torch."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cores = set()
    for number in os.sched_getaffinity(0):
        siblings = TOPOLOGY / f"cpu{number}" / "topology" / "core_cpus_list"
        cores.add(siblings.read_text() if siblings.exists() else str(number))
    return len(cores)
