"""Several processes compute what one process does: training, and features.

Two workers with DeepSpeed, fed by Ray Data, train the model that one process trains (ZeRO-3 does so
in ``test_study_on_ray.py``). Two models of a pool give the features that one gives.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import astuple, replace
from functools import partial
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
from w2s_ray.cluster import launch
from w2s_ray.cluster.launch import HungGroup, WorkerGroup
from w2s_ray.cluster.tune_run import run
from w2s_ray.data.prepare import SPLITS
from w2s_ray.models import inference
from w2s_ray.objectives.objective import Objective
from w2s_ray.plan.build import build
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute as run_step
from w2s_ray.spec.loading import load
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.names import SOFT_LABELS
from w2s_ray.store.parts import Parts
from w2s_ray.training.early_end import LINE, asked
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


class UntilAsked(Objective):
    """An objective whose third batch lasts until the training is asked to end."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        calls = self.__dict__.setdefault("calls", [])
        calls.append(len(calls))
        deadline = time.monotonic() + 300
        while len(calls) == 3 and _is_first() and not asked() and time.monotonic() < deadline:
            time.sleep(0.02)
        return super().__call__(*arguments, **options)


def _is_first() -> bool:
    """Whether this process is the first of its group; the others are not asked."""
    return not (torch.distributed.is_initialized() and torch.distributed.get_rank())


class Arrived:
    """An export that writes what a worker has of the job's rows."""

    def __call__(self, folder: Path | None, job: TrainJob, trained: TrainedModel) -> None:
        if folder is not None:
            columns = job.rows.column_names + job.test.column_names
            (folder / "columns.txt").write_text(" ".join(columns))


def execute(step: Step, store: Store, context: Any, until_asked: bool = False) -> dict[str, Any]:
    """Trains the job."""
    with store.claim(step.key), store.draft(step.identity, {}) as draft:
        checkpoints = Checkpoints(store, step.key)
        training = group_job(step.key, step.execution)
        training = replace(training, export=Arrived(), checkpoints=checkpoints)
        values = astuple(training.objective)
        if until_asked:
            training = replace(training, objective=UntilAsked(*values))
        elif step.key == "zero2":
            Fragile.died = Path(store.uri) / "died"
            training = replace(training, objective=Fragile(*values))
        draft.metrics.update(context.fit(training, draft.folder, context.progress))
    return dict(draft.metrics)


def interrupt(todo: dict[str, Step], store: str) -> list[str]:
    """Runs steps until all of them train, then sends SIGINT; returns what is said of it."""
    training: set[str] = set()
    said: list[str] = []

    def on_event(event: str, step: Step, numbers: dict[str, Any]) -> None:
        if event == "progress" and "loss" in numbers and step.key not in training:
            training.add(step.key)
            if training == set(todo):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(
            todo,
            store,
            execute=partial(execute, until_asked=True),
            on_event=on_event,
            say=said.append,
        )
    return said


def numbers(folder: Path) -> tuple[Any, Any]:
    """Losses of the steps; probabilities of the test rows."""
    loss = pq.read_table(folder / "curve.parquet")["loss"].to_numpy()
    return loss, np.stack(pq.read_table(folder / "test.parquet")["probs"].to_numpy())


def step(key: str, needed: str | None = None, **execution: Any) -> Step:
    inputs = {"after": needed} if needed else {}
    defaults = {"workers": 1, "cpus_per_worker": 1.5, "gpus_per_worker": 0.0}
    return a_step("student", key, inputs=inputs, model="a/model", **{**defaults, **execution})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_two_workers_train_as_one(tmp_path: Path) -> None:
    """First both steps run at once until a signal, which leaves a checkpoint of the update that
    each is in. Then the group takes all CPUs of the cluster, so the warm process of the step before
    must go."""
    small = {"cpus_per_worker": 1.0}
    both = {
        "one": step("one", **small),
        "zero2": step("zero2", workers=2, zero_stage=2, **small),
    }
    assert interrupt(both, str(tmp_path / "store")) == [LINE]
    store = Store.open(tmp_path / "store")
    assert store.listing("claims") == [] and not store.finished()
    reached = [Checkpoints(store, key).latest() for key in both]
    assert [checkpoint and checkpoint.update for checkpoint in reached] == [3, 3]
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
    artifact = store.artifact("zero2")
    for key in both:
        assert store.artifact(key).record["metrics"]["checkpoints"]["resumed_at"] == 3
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
def test_a_pool_gives_what_one_process_does_and_a_part_that_fails_costs_itself(
    write_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of features a process of the pool dies once, and one part is an error: one process does the
    rest. Labels, in two parts since the weak model is calibrated, are whole."""
    plan = build(
        load(
            write_spec(
                grid__trainable=["last_layer", "full"],
                training__weak={"calibrate": "temperature", "learning_rate": 0.01},
                execution={"inference_workers": 2},
            )
        )
    )
    features = next(step for step in plan if step.kind.name == "features")
    label = next(s for s in plan if s.kind.name == "label" and "features" not in s.inputs)
    whole, broken = Store.open(tmp_path / "whole"), Store.open(tmp_path / "broken")
    run_step(plan.steps[label.inputs["prepare"]], whole)
    run_step(plan.steps[label.inputs["weak"]], whole)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken", dirs_exist_ok=True)
    run_step(features, whole)
    run_step(label, whole)
    output: list[dict[str, Any]] = []
    schedule = run(
        {features.key: replace(features, kind=FRAGILE), label.key: label},
        broken.uri,
        on_event=lambda event, step, numbers: output.append(numbers),
    )
    assert schedule.failed == {features.key}
    one, other = whole.artifact(label.key), broken.artifact(label.key)
    assert other.record["execution"]["runner"] == "ray data"
    assert one.file(SOFT_LABELS).read_bytes() == other.file(SOFT_LABELS).read_bytes()
    for name in ("accuracy", "mean_confidence", "calibration_temperature", "calibration_rows"):
        assert one.record["metrics"][name] == other.record["metrics"][name]
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


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_group_that_hangs_is_a_failure_that_says_so(
    write_spec: Any, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own detector runs, switched on by its variables. A program answers it in place of
    ``ncclras``, which comes with no wheel: two ranks differ, and neither goes on."""
    answering = programs / "ncclras"
    answering.write_text(f"#!/bin/sh\necho '{json.dumps(_hung_report())}'\n")
    answering.chmod(0o755)
    for name, value in HANG_DETECTOR.items():
        monkeypatch.setenv(f"RAY_TRAIN_{name}", value)
    monkeypatch.setattr(launch, "RETRIES", 0)
    plan = build(load(write_spec(grid__trainable=["full"])))
    weak = next(step for step in plan if step.kind.name == "weak")
    store = Store.open(tmp_path / "store")
    run_step(plan.steps[weak.inputs["prepare"]], store)
    group = WorkerGroup(f"{store.uri}/.ray", note=print, join=lambda worker: None)
    try:
        with pytest.raises(HungGroup):
            run_step(weak, store, Context(fit=group.fit))
    finally:
        answering.unlink()
    assert store.failures()[weak.key]["error"] == (
        "HungGroup: the workers hung: 1 of 1 communicators have a collective mismatch and made no "
        "progress for 1 seconds (5 polls); Ray's log of the run has their stacks"
    )


HANG_DETECTOR = {
    "ENABLE_NCCL_HANG_DETECTOR": "1",
    "NCCL_RAS_ACTION": "fail",
    "NCCL_RAS_MIN_POLL_INTERVAL_S": "0.2",
    "NCCL_RAS_CONFIRM_DURATION_S": "1",
}


def _hung_report() -> dict[str, Any]:
    """What ``ncclras`` says of two ranks, of which one has not begun its eighth AllReduce."""
    running = {"abort_flag": False, "finalize_called": False, "destroy_flag": False}
    ranks = [
        {
            "rank": rank,
            "status": {**running, "init_state": 0},
            "collective_counts": {"AllReduce": 8 - rank},
        }
        for rank in range(2)
    ]
    return {"timestamp": "now", "communicators": [{"hash": "0x1", "ranks": ranks}]}
