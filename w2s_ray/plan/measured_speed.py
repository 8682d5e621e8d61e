"""Operations per second of this machine, for a plan that names no GPU type.

Steps that are finished tell it: their predicted operations over their seconds, with all that took
time besides. Before the first one, small products of matrices are timed for a moment, and what the
two quickstarts made of a machine on which these were known says the rest: good to a factor of
three. A product of this size runs on one core in microseconds, so the fastest of a thousand is that
of an idle core, also on a busy machine.
"""

import os
import time
from collections.abc import Container
from typing import NamedTuple

import numpy as np

from w2s_ray.plan.cost import flops
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.execution import Execution
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError

SAMPLES = 64  # finished steps to read at most
SIZE = 64  # of the matrices
TIMED_SECONDS = 0.05
# The quickstarts, 32.6 and 32.1 TFLOP by our count, take 3 and 15 minutes on two cores of an EPYC
# that do 20 GFLOP/s each in these products. Generated text is decoded a token at a time.
RATIOS = {"soft_labels": 4.5, "generation": 0.9}


class Speed(NamedTuple):
    """A measured speed.

    Attributes:
        flops: operations per second.
        steps: finished steps that it was measured on; 0: on products of matrices.
    """

    flops: float
    steps: int


def measured_speed(
    plan: Plan, store: Store, finished: Container[str], execution: Execution
) -> Speed | None:
    """The speed of what runs, or ran, this plan; None with a GPU type, or on GPUs not yet used."""
    if execution.gpu_type is not None:
        return None
    done = flops(step for step in plan if step.key in finished)
    costs = {key: cost for key, cost in sorted(done.items())[:SAMPLES] if cost}
    try:
        records = store.records(costs)
    except StoreError:  # which the run repairs, and says so
        records = {}
    seconds = {key: record["metrics"].get("seconds", 0.0) for key, record in records.items()}
    if sum(seconds.values()) > 0:
        return Speed(sum(costs[key] for key in seconds) / sum(seconds.values()), len(seconds))
    return None if execution.gpus_per_worker else Speed(RATIOS[plan.task] * product_flops(), 0)


def product_flops() -> float:
    """Operations per second of small fp32 matrix products, on all cores."""
    matrix, least = np.ones((SIZE, SIZE), dtype=np.float32), float("inf")
    result, end = np.empty_like(matrix), time.perf_counter() + TIMED_SECONDS
    while (begin := time.perf_counter()) < end:
        np.matmul(matrix, matrix, out=result)
        least = min(least, time.perf_counter() - begin)
    return (os.cpu_count() or 1) * 2.0 * SIZE**3 / least
