"""When memory runs out in a pass, passes are made half as long, and the run goes on.

The optimizer's batch stays what it is, only cut finer: identity and results do not change beyond
rounding. A run that still does not fit after a few halvings fails with the library's own words.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from w2s_ray.training.job import TrainJob

HALVINGS = 3
# What torch says where no GPU is, and what NCCL and cuBLAS say where one is full.
WORDS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def halved(job: TrainJob, error: Exception) -> TrainJob:
    """The job with passes half as long, to go on with after ``error``.

    Raises:
        Exception: ``error`` itself, if it does not say that memory ran out, or says so once more
            after the last halving.
    """
    if not is_out_of_memory(error) or job.halvings == HALVINGS or job.token_budget == 1:
        raise error
    return replace(job, halvings=job.halvings + 1)


def with_smaller_passes(job: TrainJob, fit: Callable[[TrainJob], dict[str, Any]]) -> dict[str, Any]:
    """``fit(job)``, again with passes half as long as often as memory runs out in this process."""
    while True:
        try:
            return fit(job)
        except Exception as error:
            job = halved(job, error)
        gc.collect()  # what the failed try held
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
