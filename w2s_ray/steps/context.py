"""What a step may ask of whoever runs it: a place for progress, and several processes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_ray.training.job import TrainJob, fit
from w2s_ray.training.loop import Progress


def fit_in_process(job: TrainJob, out: Path, progress: Progress) -> dict[str, Any]:
    """Trains in the calling process, whatever number of workers the spec asks for."""
    return fit(job, out, progress=progress)


@dataclass(frozen=True)
class Context:
    """Attributes:
    progress: takes the numbers of a running step.
    fit: trains a job and leaves its files in a folder; a cluster may start workers for it.
    runner: who runs the step, for its record.
    """

    progress: Progress = lambda numbers: None
    fit: Callable[[TrainJob, Path, Progress], dict[str, Any]] = fit_in_process
    runner: str = "in process"
