"""Threads of the steps on one machine: all of its CPUs for a lone step, shared where several run.

A process that runs a step holds a locked file in a folder of its machine, so that every process can
count the others without asking anybody; the kernel unlocks the file of a process that dies.

What a step learns may depend on the number of threads in the last bit: the gradient of a LayerNorm
is summed thread by thread. So a step that trains keeps the number that it began with, and resumes
with it (``training.resume``). One that only applies a model follows what runs beside it, since a
forward pass splits no sum among threads.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_ray.plan.step import Step
from w2s_ray.training.progress import Progress, Throttle

FOLDER = Path(tempfile.gettempdir()) / f"w2s_ray-running-{os.getuid()}"
RUNNING = ".running"
FOLLOWED_SECONDS = 0.5  # between two looks at what else runs


@contextmanager
def running(folder: Path = FOLDER) -> Iterator[None]:
    """Counts this thread among those of its machine that run a step."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor, hidden = tempfile.mkstemp(dir=folder)  # a name that was never used
    shown = Path(hidden).with_suffix(RUNNING)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        Path(hidden).rename(shown)  # locked by now: nobody takes it for that of a dead process
        yield
    finally:
        shown.unlink(missing_ok=True)
        os.close(descriptor)


def count_running(folder: Path = FOLDER) -> int:
    """How many threads run a step; files of processes that died are removed."""
    return sum(_is_held(path) for path in folder.glob(f"*{RUNNING}"))


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # its step has just ended
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Share:
    """This process's share of a machine's CPUs, as threads of torch.

    Attributes:
        cpus: CPUs to share; None: threads are fixed, and this process is only counted.
        folder: where what runs on the machine is counted.
    """

    cpus: int | None
    folder: Path = FOLDER

    @contextmanager
    def held(self, step: Step, most: int, progress: Progress) -> Iterator[Progress]:
        """Takes a share for as long as the calling thread runs a step, and gives its progress.

        Args:
            most: threads for a step that keeps its share; those that start beside it are not
                counted yet.
        """
        with running(self.folder):
            if follows(step):
                self._take(None)
                yield self._following(progress)
            else:
                self._take(most)
                yield progress

    def _take(self, most: int | None) -> None:
        """Sets the threads of the calling thread, which must be the one that computes."""
        if self.cpus is None:
            return
        import torch

        share = self.cpus // max(1, count_running(self.folder))
        threads = max(1, share if most is None else min(share, most))
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def _following(self, progress: Progress) -> Progress:
        """``progress``, which the thread that computes calls: it looks again now and then."""
        throttle = Throttle(FOLLOWED_SECONDS)

        def follow(numbers: dict[str, Any]) -> None:
            if throttle.due():
                self._take(None)
            progress(numbers)

        return follow


def follows(step: Step) -> bool:
    """Whether the step only applies a model, so that its threads may change while it runs."""
    return bool(step.kind.scored) and not step.kind.trains
