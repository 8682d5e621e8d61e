"""Weights & Biases: each cell a run, the study their group; offline unless the user is known."""

import os
from pathlib import Path

import wandb
from wandb import Settings
from wandb.sdk.wandb_run import Run

from w2s_ray.sinks.messages import PROJECT, CellRun, Numbers


class Wandb:
    """Writes to the server if ``WANDB_API_KEY`` or ``WANDB_MODE`` say so, else into ``folder``."""

    def __init__(self, study: str, folder: Path) -> None:
        self._study = study
        self._folder = os.environ.get("WANDB_DIR") or str(folder)
        online = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        self._mode = os.environ.get("WANDB_MODE") or online

    def open(self, cell: CellRun) -> "_Run":
        return _Run(
            wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                group=self._study,
                id=cell.id,
                name=cell.name,
                config=dict(cell.values),
                dir=self._folder,
                mode=self._mode,
                resume="allow" if self._mode == "online" else None,
                reinit="create_new",
                settings=Settings(silent=True, console="off"),
            )
        )

    def close(self) -> None:
        wandb.teardown()


class _Run:
    def __init__(self, run: Run) -> None:
        self._run = run

    def log(self, numbers: Numbers, step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def finish(self, summary: Numbers, status: str) -> None:
        self._run.summary.update({**summary, "status": status})
        self._run.finish(exit_code=0 if status == "done" else 1)
