"""Limits a process of the cluster to the CPUs and GPUs that Ray has assigned to it."""

import logging
import os

from w2s_ray.cluster.environment import LIBRARIES, THREAD_LIMITS, set_defaults


def use_only(cpus: float, gpus: float) -> None:
    """Limits the threads of every library to the whole CPUs of this process, at least one.

    Ray hides the GPUs of other processes, except from a process that has none: there all GPUs of
    the machine would stay visible.
    """
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threads = max(1, int(cpus))
    for name in THREAD_LIMITS:
        os.environ[name] = str(threads)
    set_defaults(LIBRARIES)
    import torch

    torch.set_num_threads(threads)
    logging.getLogger("transformers").setLevel(logging.ERROR)
