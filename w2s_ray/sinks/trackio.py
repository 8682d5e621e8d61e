"""Trackio: each cell a run, the study their group, in files of this machine."""

import os
from pathlib import Path
from typing import Any

from w2s_ray.sinks.messages import PROJECT, CellRun, Numbers

FOLDER = "TRACKIO_DIR"


class Trackio:
    """Writes to ``TRACKIO_DIR``, else into ``folder``."""

    def __init__(self, study: str, folder: Path) -> None:
        self._study = study
        os.environ.setdefault(FOLDER, str(folder))
        import trackio  # which reads the variable

        self._init = trackio.init

    def open(self, cell: CellRun) -> "_Run":
        return _Run(
            self._init(
                PROJECT,
                name=cell.name,
                group=self._study,
                config=dict(cell.values),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        )

    def close(self) -> None:
        """Nothing is left."""


class _Run:
    def __init__(self, run: Any) -> None:
        self._run = run
        self._step = 0

    def log(self, numbers: Numbers, step: int) -> None:
        self._step = step
        self._run.log(dict(numbers), step=step)

    def finish(self, summary: Numbers, status: str) -> None:
        numbers = {f"summary/{name}": number for name, number in summary.items()}
        self._run.log({**numbers, "status": status}, step=self._step)
        self._run.finish()
