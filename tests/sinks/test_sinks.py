"""Each sink gets one run a cell: its progress, its scores, its summary; and none can stop a study.

Each is read back from its own local files by its own library. Where a package is absent its test is
skipped; what the study sends is tested with TensorBoard in any case.
"""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.testing.specs import REPOSITORY
from w2s_ray.plan.build import build
from w2s_ray.sinks import feed
from w2s_ray.sinks.feed import Sinks, folder_beside
from w2s_ray.spec.loading import load
from w2s_ray.study import main

pytestmark = pytest.mark.long

VARIABLES = ("MLFLOW_TRACKING_URI", "TRACKIO_DIR", "WANDB_API_KEY", "WANDB_DIR", "WANDB_MODE")
TWO_CELLS = {
    "grid__loss": ["forward_kl", "reverse_kl"],
    "grid__noise_ratio": [0.0],
    "grid__trainable": ["full"],
}

WriteSpec = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine that would send the numbers elsewhere."""
    for name in (*VARIABLES, "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def ran(write_spec: WriteSpec, tmp_path: Path, *sinks: str, **changes: Any) -> list[dict[str, Any]]:
    """The rows of a study that was run with these sinks."""
    spec = write_spec(execution={"sinks": list(sinks)}, **{**TWO_CELLS, **changes})
    assert main([str(spec), "--local", "--store", str(tmp_path / "store")]) == 0
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "store" / "results").to_pylist()
    return rows


def tensorboard(folder: Path) -> dict[str, Any]:
    """Scalars by cell and tag: (step, value) of each event."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for cell in folder.iterdir():
        events = accumulator.EventAccumulator(str(cell))
        events.Reload()
        tags = events.Tags()["scalars"]
        found[cell.name] = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags
        }
    return found


def test_tensorboard_has_a_run_for_each_cell(
    write_spec: WriteSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = ran(write_spec, tmp_path, "tensorboard", "tensorboard")
    runs = tensorboard(tmp_path / "store" / "sinks" / "tensorboard" / "tiny")
    assert len(runs) == len(rows) == 2
    for row in rows:
        (run,) = (run for name, run in runs.items() if name.endswith(row["key"][:8]))
        assert run["summary/student_accuracy"] == [(0, pytest.approx(row["student_accuracy"]))]
        assert run["test/accuracy"][0][1] == pytest.approx(row["student_accuracy"])
        assert run["train/loss"]  # while it was trained
        assert run["train/final_loss"][0] == (row["steps"], pytest.approx(row["final_loss"]))
    assert "sink" not in capfd.readouterr().out


def test_cells_that_are_fused_are_sent_when_they_are_done(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    rows = ran(write_spec, tmp_path, "tensorboard", grid__trainable=["last_layer"])
    runs = tensorboard(tmp_path / "store" / "sinks" / "tensorboard" / "tiny")
    assert len(runs) == len(rows) == 2
    assert all("train/loss" not in run and run["summary/gain"] for run in runs.values())


def test_a_study_that_is_finished_sends_nothing_again(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    ran(write_spec, tmp_path, "tensorboard")
    folder = tmp_path / "store" / "sinks" / "tensorboard"
    before = sorted(folder.rglob("*"))
    ran(write_spec, tmp_path, "tensorboard")
    assert sorted(folder.rglob("*")) == before


def test_mlflow_has_an_experiment_with_a_run_for_each_cell(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    rows = ran(write_spec, tmp_path, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/store/sinks/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    found = client.search_runs([experiment.experiment_id])
    runs = {run.data.tags["w2s_ray.cell"]: run for run in found}
    assert runs.keys() == {row["key"] for row in rows}
    for row in rows:
        run = runs[row["key"]]
        assert run.info.status == "FINISHED"
        assert run.data.params["loss"] == row["loss"]
        assert run.data.metrics["summary/student_accuracy"] == row["student_accuracy"]
        assert client.get_metric_history(run.info.run_id, "train/loss")


def offline_records(path: Path) -> Iterator[bytes]:
    """The records of a file of W&B: LevelDB's log, after seven bytes of their own."""
    content, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_has_an_offline_run_for_each_cell(write_spec: WriteSpec, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    rows = ran(write_spec, tmp_path, "wandb")
    found: dict[str, dict[str, Any]] = {}
    for path in (tmp_path / "store" / "sinks" / "wandb").rglob("*.wandb"):
        summary: dict[str, Any] = {}
        for content in offline_records(path):
            record = wandb_internal_pb2.Record.FromString(content)
            if record.HasField("run"):
                assert record.run.run_group == "tiny"
                found[record.run.run_id] = summary
            for item in record.summary.update:
                summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
    assert found.keys() == {row["key"] for row in rows}
    for row in rows:
        assert found[row["key"]]["student_accuracy"] == row["student_accuracy"]
        assert found[row["key"]]["status"] == "done"


def test_trackio_has_a_run_for_each_cell(
    write_spec: WriteSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio")
    rows = ran(write_spec, tmp_path, "trackio")
    code = (
        "import json\nfrom trackio.sqlite_storage import SQLiteStorage as S\n"
        "print(json.dumps({r: S.get_logs('w2s_ray', r) for r in S.get_runs('w2s_ray')}))"
    )
    read = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "store" / "sinks" / "trackio")},
        capture_output=True,
        text=True,
        check=True,
    )
    runs = json.loads(read.stdout.splitlines()[-1])
    assert len(runs) == len(rows)
    for row in rows:
        (logs,) = (logs for name, logs in runs.items() if name.endswith(row["key"][:8]))
        assert any("train/loss" in entry for entry in logs)
        assert logs[-1]["summary/student_accuracy"] == row["student_accuracy"]


def test_a_sink_that_fails_says_one_line_and_the_study_goes_on(
    write_spec: WriteSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store" / "sinks").mkdir(parents=True)
    (tmp_path / "store" / "sinks" / "tensorboard").write_text("in the way")
    rows = ran(write_spec, tmp_path, "tensorboard")
    assert [row["status"] for row in rows] == ["done", "done"]
    output = capfd.readouterr()
    lines = (output.out + output.err).splitlines()
    (line,) = (line for line in lines if line.startswith("note: the sink "))
    assert line.startswith("note: the sink tensorboard is incomplete: FileExistsError: ")


def test_a_missing_package_is_one_line_before_anything_is_spent(
    write_spec: WriteSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(feed.PACKAGES, "wandb", ("no_such_package",))
    spec = write_spec(execution={"sinks": ["wandb"]})
    assert main([str(spec), "--local", "--store", str(tmp_path / "store")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "execution.sinks: wandb needs the package no_such_package" in line
    assert "study.yaml:" in line
    assert not (tmp_path / "store" / "prepare").exists()


def test_an_interruption_leaves_runs_that_say_so(write_spec: WriteSpec, tmp_path: Path) -> None:
    plan = build(load(write_spec(**TWO_CELLS)))
    student = plan.steps[plan.cells[0].keys["student"]]
    lines: list[str] = []

    def interrupted() -> None:
        with Sinks(["tensorboard"], plan, str(tmp_path), lines.append) as sinks:
            sinks("progress", student, {"step": 3, "steps": 9, "loss": 0.5})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (run,) = tensorboard(tmp_path / "sinks" / "tensorboard" / "tiny").values()
    assert run == {"train/loss": [(3, 0.5)]}
    assert lines == []


def test_sinks_of_a_remote_store_write_here() -> None:
    assert folder_beside("s3://bucket/store") == Path.cwd() / "w2s_ray_sinks"
    assert folder_beside("/data/store") == Path("/data/store/sinks")


def test_every_sink_of_the_spec_has_a_module() -> None:
    from w2s_ray.sinks.process import CLASSES

    assert CLASSES.keys() == feed.PACKAGES.keys()
    names = set(CLASSES)
    for name in names:
        assert (REPOSITORY / "w2s_ray" / "sinks" / f"{name}.py").exists()
