"""How a process of the cluster behaves: as many threads as it has CPUs, and no chatter."""

import logging
import os


def use_threads(cpus: float) -> None:
    """Keeps this process to the whole CPUs it has, at least one, whatever library makes threads."""
    threads = max(1, int(cpus))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(threads)
    logging.getLogger("transformers").setLevel(logging.ERROR)
