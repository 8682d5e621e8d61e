"""Peak memory of a block of code: on the GPU if the process used one, else of the process."""

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the peak in bytes since the block was entered.

    On Linux the process's high-water mark is reset first; elsewhere, and in containers that forbid
    the reset, the peak is that of the process since its start. A process that has not initialised
    CUDA is measured without doing so.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    yield lambda: _on_gpu() or _high_water_mark()


def _on_gpu() -> int:
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.max_memory_allocated() if used else 0


def _high_water_mark() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
