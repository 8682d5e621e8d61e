"""Environment variables that Ray and the libraries in its processes read, and their values here.

A variable that the user has set keeps the user's value, except in ``TUNE``, which holds for the
duration of one Tune run and is restored afterwards.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from w2s_ray.capacity.execution import THREADS
from w2s_ray.spec.execution import Execution

ADDRESS = "RAY_ADDRESS"  # the cluster to join; unset: start a Ray of our own
OTHER_THREADS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

# Read when torch is loaded. Threads that spin while they wait take the CPU from whoever has work:
# beside a busy process two of them cost more than twice the CPU time of one, sleeping ones as much.
WAITING = {"OMP_WAIT_POLICY": "passive"}
LIBRARIES = {"TOKENIZERS_PARALLELISM": "false", **WAITING}

# Set before Ray starts, so that its processes inherit them.
SESSION = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else every process without a GPU warns
    **LIBRARIES,
}

# Set before a worker group starts; Train passes them on to its controller.
TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a finished group is noticed
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a lost worker is noticed without it
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # else the dashboard's page of Train answers 500
}

TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the old output engine is silent at verbose=0, the new is not
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files per trial
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # no periodic snapshots of a state never restored
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}
TUNE_MAX_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"  # trials that may wait for resources


def set_defaults(variables: Mapping[str, str]) -> None:
    """Sets those of ``variables`` that are unset."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def fixed_threads(execution: Execution) -> int | None:
    """Threads that the user asks for, in the environment or as CPUs in the spec; None: neither."""
    first = os.environ.get(THREADS, "").partition(",")[0].strip()
    if first.isdecimal() and int(first):
        return int(first)
    written = "cpus_per_worker" in execution.model_fields_set
    return max(1, int(execution.cpus_per_worker)) if written else None


@contextmanager
def temporarily(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets ``variables`` for as long as the context lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
