"""What a step may ask of whoever runs it: a place for progress, and several processes.

And what the runner asks of a step: to write its artifact into a draft. Several steps that are
computed together give one such writer each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from w2s_ray.store.artifact import Artifact
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.drafts import Draft
from w2s_ray.training.progress import Progress

if TYPE_CHECKING:  # a process that trains no model must not wait for transformers
    from w2s_ray.training.job import TrainJob
    from w2s_ray.training.text_job import TextJob

Artifacts = Callable[[str], Artifact]  # a finished step by its key
Write = Callable[[Draft], None]
Keep = Callable[[str, Callable[[], NDArray[Any]]], NDArray[Any]]


def fit_in_process(job: TrainJob | TextJob, out: Path, progress: Progress) -> dict[str, Any]:
    """Trains in the calling process, whatever number of workers the spec asks for.

    Steps that train on text do so by themselves, since they keep what the model made of their rows.
    """
    from w2s_ray.training.fit import fit
    from w2s_ray.training.job import TrainJob
    from w2s_ray.training.oom_retry import retry_on_oom

    assert isinstance(job, TrainJob)
    options: dict[str, Any] = {}
    if job.execution.offload != "none":
        from w2s_ray.training.deepspeed_engine import engine_options

        options = engine_options(job.execution, job.name)
    return retry_on_oom(job, lambda job: fit(job, out, progress=progress, **options))


class Part(NamedTuple):
    """Rows that are computed together.

    Attributes:
        name: of the result that is kept.
        split: the table they are in.
        start: the first of them.
        rows: how many there are.
    """

    name: str
    split: str
    start: int
    rows: int

    @property
    def counts_name(self) -> str:
        """The name under which the counts of the part's tokens are kept."""
        return f"{self.name}-counts"


@dataclass(frozen=True)
class Context:
    """Attributes:
    progress: takes the numbers of a running step.
    fit: trains a job and leaves its files in a folder; a cluster may start workers for it.
    runner: who runs the step, for its record.
    keep: an array under a name; made if an earlier try of this step has not left it.
    checkpoints: where a step that trains keeps its state.
    spread: computes those parts of a step that are not kept, in other processes, and returns
        metrics of that; here nothing, and the step computes them itself.
    """

    progress: Progress = lambda numbers: None
    fit: Callable[[TrainJob | TextJob, Path, Progress], dict[str, Any]] = fit_in_process
    runner: str = "in process"
    keep: Keep = lambda name, make: make()
    checkpoints: Checkpoints | None = None
    spread: Callable[[Sequence[Part]], Mapping[str, Any]] = lambda parts: {}
