"""Several processes compute what one process does: training, and features.

Two workers with DeepSpeed, fed by Ray Data, train the model that one process trains (ZeRO-3 does so
in ``test_study_on_ray.py``). Two models of a pool give the features that one gives.
"""

import contextlib
import os
import sys
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ray import cloudpickle

from tests.testing.fragile_features import DIED, FRAGILE
from tests.testing.jobs import job, rows
from tests.testing.steps import a_step
from w2s_ray.capacity.execution import Execution
from w2s_ray.cluster.tune_run import run
from w2s_ray.data.prepare import SPLITS
from w2s_ray.models import inference
from w2s_ray.objectives.objective import Objective
from w2s_ray.plan.build import build
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute as run_step
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.store.parts import Parts
from w2s_ray.training.fit import fit
from w2s_ray.training.job import TrainedModel, TrainJob

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def group_job(name: str, execution: Execution) -> TrainJob:
    """An odd number of test rows, and a last batch that does not divide by 2 either."""
    return job(name=name, execution=execution, test=rows(9, seed=1))


class Fragile(Objective):
    """An objective during which the second worker's process dies, once."""

    died = Path()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            with contextlib.suppress(FileExistsError):
                self.died.touch(exist_ok=False)
                os._exit(1)
        return super().__call__(*arguments, **options)


class Arrived:
    """An export that writes what a worker has of the job's rows."""

    def __call__(self, folder: Path | None, job: TrainJob, trained: TrainedModel) -> None:
        if folder is not None:
            columns = job.rows.column_names + job.test.column_names
            (folder / "columns.txt").write_text(" ".join(columns))


def execute(step: Step, store: Store, context: Any) -> dict[str, Any]:
    """Trains the job; a step of one process only keeps its process warm."""
    with store.draft(step.identity, {}) as draft:
        if step.execution.workers > 1:
            training = group_job(step.key, step.execution)
            training = replace(training, export=Arrived())
            if step.key == "zero2":
                Fragile.died = Path(store.uri) / "died"
                training = replace(training, objective=Fragile(*astuple(training.objective)))
            draft.metrics.update(context.fit(training, draft.folder, context.progress))
    return dict(draft.metrics)


def numbers(folder: Path) -> tuple[Any, Any]:
    """Losses of the steps; probabilities of the test rows."""
    loss = pq.read_table(folder / "curve.parquet")["loss"].to_numpy()
    return loss, np.stack(pq.read_table(folder / "test.parquet")["probs"].to_numpy())


def step(key: str, needed: str | None = None, **execution: Any) -> Step:
    inputs = {"after": needed} if needed else {}
    defaults = {"workers": 1, "cpus_per_worker": 1.5, "gpus_per_worker": 0.0}
    return a_step("student", key, inputs=inputs, **{**defaults, **execution})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_two_workers_train_as_one(tmp_path: Path) -> None:
    """The group takes all CPUs of the cluster, so the warm process of the step before must go."""
    (tmp_path / "alone").mkdir()
    metrics = fit(group_job("alone", Execution()), tmp_path / "alone")
    loss, probs = numbers(tmp_path / "alone")
    todo = {
        "one": step("one"),
        "zero2": step("zero2", "one", workers=2, zero_stage=2, micro_batch_tokens=150),
    }
    output: list[str] = []
    schedule = run(
        todo,
        str(tmp_path / "store"),
        execute=execute,
        on_event=lambda event, step, numbers: output.append(f"{event} {step.key}"),
    )
    assert schedule.done == set(todo)
    assert (tmp_path / "store/died").exists()
    assert "progress zero2" in output
    store = Store.open(tmp_path / "store")
    artifact = store.artifact("zero2")
    their_loss, their_probs = numbers(artifact.folder)
    np.testing.assert_allclose(their_loss, loss, atol=1e-5)
    assert abs((their_loss - loss).mean()) < 2e-6
    np.testing.assert_allclose(their_probs, probs, atol=1e-5)
    assert (artifact.folder / "model.safetensors").exists()
    assert artifact.record["metrics"]["steps"] == metrics["steps"]
    assert (artifact.folder / "columns.txt").read_text() == "row_id label row_id label"
    assert list((tmp_path / "store").glob(".ray/*/*")) == []


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_pool_gives_the_features_of_one_process_and_a_part_that_fails_costs_itself(
    write_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the pool dies once, and one part is an error: one process does the rest."""
    plan = build(load(write_spec(execution={"inference_workers": 2})))
    features = next(step for step in plan if step.kind.name == "features")
    whole, broken = Store.open(tmp_path / "whole"), Store.open(tmp_path / "broken")
    for store in (whole, broken):
        run_step(plan.steps[features.inputs["prepare"]], store)
    run_step(features, whole)
    output: list[dict[str, Any]] = []
    schedule = run(
        {features.key: replace(features, kind=FRAGILE)},
        broken.uri,
        on_event=lambda event, step, numbers: output.append(numbers),
    )
    assert schedule.failed == {features.key}
    failure = broken.failures()[features.key]
    assert failure["error"] == "ValueError: no test rows today"
    assert "fragile_features.py" in failure["traceback"]
    assert (tmp_path / "broken" / DIED).exists()
    kept = Parts(broken, features.key).missing([f"{split}-00000-of-1024" for split in SPLITS])
    assert kept == ["test-00000-of-1024"]
    assert {"step": 0, "steps": 120, "unit": "rows"} in output
    seen: list[int] = []
    sweep = inference.sweep

    def counted(forward: Any, tokens: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(len(tokens.row_ids))
        return sweep(forward, tokens, *arguments, **options)

    monkeypatch.setattr(inference, "sweep", counted)
    run_step(features, broken)
    assert seen == [32]
    one, other = whole.artifact(features.key), broken.artifact(features.key)
    for path in one.folder.iterdir():
        if path.name != "record.json":
            assert path.read_bytes() == (other.folder / path.name).read_bytes()
    for name in ("tokens", "truncated_rows", "identical_rows", "shares_prompts", "compiled"):
        assert one.record["metrics"][name] == other.record["metrics"][name]
