"""On OOM a training restarts with a micro-batch half the size, from its newest checkpoint.

The optimizer's batch stays the same and is only cut finer, so the job's identity does not change,
nor do its results beyond rounding. A job that still does not fit after ``MAX_OOM_RETRIES`` fails
with the library's own message.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from w2s_ray.training.job import TrainJob
from w2s_ray.training.text_job import TextJob

Job = TypeVar("Job", bound=TrainJob | TextJob)

MAX_OOM_RETRIES = 3
# Messages of torch without a GPU, of NCCL, and of cuBLAS.
OOM_MESSAGES = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OOM_MESSAGES)


def with_smaller_micro_batch(job: Job, error: Exception) -> Job:
    """The job with a micro-batch half the size, to retry after ``error``.

    Raises:
        Exception: ``error`` itself, if it is no OOM, or if no retry is left.
    """
    exhausted = job.oom_retries == MAX_OOM_RETRIES or job.token_budget == 1
    if exhausted or not is_out_of_memory(error):
        raise error
    return replace(job, oom_retries=job.oom_retries + 1)


def retry_on_oom(job: Job, fit: Callable[[Job], dict[str, Any]]) -> dict[str, Any]:
    """``fit(job)``, retried with smaller micro-batches when this process runs out of memory."""
    while True:
        try:
            return fit(job)
        except Exception as error:
            job = with_smaller_micro_batch(job, error)
        free_memory()


def free_memory() -> None:
    """Frees what a failed attempt has held."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
