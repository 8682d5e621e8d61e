"""How a process of the cluster behaves: it uses the CPUs and GPUs it was given, and no others."""

import logging
import os


def use_only(cpus: float, gpus: float) -> None:
    """Keeps this process to the whole CPUs it has, at least one, whatever library makes threads.

    Ray hides the GPUs that are others', but all of them stay visible to a process without any.
    """
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threads = max(1, int(cpus))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(threads)
    logging.getLogger("transformers").setLevel(logging.ERROR)
