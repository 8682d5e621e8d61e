"""MLflow: the study is an experiment, each cell a run; by default in a SQLite file."""

import os
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from w2s_ray.sinks.messages import CellRun, Numbers

URI = "MLFLOW_TRACKING_URI"
TAG = "w2s_ray.cell"
STATUSES = {"done": "FINISHED", "failed": "FAILED", "blocked": "FAILED"}


class Mlflow:
    """Writes to ``MLFLOW_TRACKING_URI``, else to ``<folder>/mlflow.db``."""

    def __init__(self, study: str, folder: Path) -> None:
        self._client = MlflowClient(os.environ.get(URI) or f"sqlite:///{folder / 'mlflow.db'}")
        found = self._client.get_experiment_by_name(study)
        if found is None:
            at = None if os.environ.get(URI) else (folder / "artifacts").as_uri()
            self._experiment = self._client.create_experiment(study, artifact_location=at)
        else:
            self._experiment = found.experiment_id

    def open(self, cell: CellRun) -> "_Run":
        same = self._client.search_runs(
            [self._experiment], filter_string=f"tags.`{TAG}` = '{cell.id}'", max_results=1
        )
        if same:
            run = same[0].info.run_id
            self._client.update_run(run, status="RUNNING")
            return _Run(self._client, run)
        made = self._client.create_run(self._experiment, run_name=cell.name, tags={TAG: cell.id})
        for name, value in cell.values.items():
            self._client.log_param(made.info.run_id, name, value)
        return _Run(self._client, made.info.run_id)

    def close(self) -> None:
        """Nothing is left."""


class _Run:
    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def log(self, numbers: Numbers, step: int) -> None:
        for name, number in numbers.items():
            self._client.log_metric(self._run, name, number, step=step)

    def finish(self, summary: Numbers, status: str) -> None:
        for name, number in summary.items():
            self._client.log_metric(self._run, f"summary/{name}", number)
        self._client.set_tag(self._run, "status", status)
        self._client.set_terminated(self._run, STATUSES.get(status, "KILLED"))
