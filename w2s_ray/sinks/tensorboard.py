"""TensorBoard: one folder of event files a cell, written by tensorboardX, which Ray Tune needs."""

import json
from pathlib import Path

from tensorboardX import SummaryWriter

from w2s_ray.sinks.messages import CellRun, Numbers


class TensorBoard:
    """Writes ``<folder>/<study>/<cell>/``."""

    def __init__(self, study: str, folder: Path) -> None:
        self._folder = folder / study

    def open(self, cell: CellRun) -> "_Run":
        writer = SummaryWriter(str(self._folder / cell.name))
        writer.add_text("cell", json.dumps(cell.values), 0)
        return _Run(writer)

    def close(self) -> None:
        """Nothing is left."""


class _Run:
    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, numbers: Numbers, step: int) -> None:
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def finish(self, summary: Numbers, status: str) -> None:
        for name, number in summary.items():
            self._writer.add_scalar(f"summary/{name}", number, 0)
        self._writer.add_text("status", status, 0)
        self._writer.close()
