"""Faults of earlier code for this protocol, each a test (numbered as in docs/protocol.md §5).

1, keys made of part of the configuration: ``test_identity.py``. 3, warm-up and threshold:
``tests/objectives/test_confidence.py``; graphs of micro-batches: ``tests/training/test_job.py``.
4, the last token by id: ``tests/models``. 9 and 10, prompts in two splits and the length baseline:
``tests/data``. The rest is here, on whole studies.
"""

import json
import os
import signal
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main


def results(store):
    return pq.read_table(store / "results").to_pylist()


def scores(store):
    """What a study found, without what differs between any two runs (times, memory)."""
    kept = ("key", "status", "student_accuracy", "weak_accuracy", "ceiling_accuracy", "pgr",
            "gain", "misfit_forward", "misfit_reverse")  # fmt: skip
    return [{name: row[name] for name in kept} for row in results(store)]


def killed_in_the_midst(kind, forks, spec, root):
    """Runs the command and kills it while it computes a step of this kind; the step's key."""
    run, deadline = forks.begin(spec, "--local", folder=spec.parent), time.monotonic() + 200
    while time.monotonic() < deadline:
        if drafts := list(root.glob(f"{kind}/.tmp-*")):
            os.kill(run, signal.SIGSTOP)  # so that the step cannot end before the kill
            while psutil.Process(run).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                time.sleep(0.001)
            key = drafts[0].name.split("-")[1]
            if drafts[0].is_dir() and key not in Store.open(root).finished():
                os.kill(run, signal.SIGKILL)
                assert forks.wait(run) == -signal.SIGKILL
                return key
            os.kill(run, signal.SIGCONT)
        time.sleep(0.005)
    os.kill(run, signal.SIGKILL)
    raise AssertionError(f"no step of kind {kind} was seen; exit code {forks.wait(run)}")


@pytest.mark.long
def test_2_a_killed_run_counts_for_nothing_and_the_same_command_carries_on(
    write_spec, tmp_path, forks
):
    spec = write_spec(grid__trainable=["full"], grid__seed=[0, 1, 2])
    root = tmp_path / "store"
    kept, unfinished = {}, []
    for kind in ("weak", "student"):
        unfinished.append(killed_in_the_midst(kind, forks, spec, root))
        store = Store.open(root)
        kept |= store.records(store.finished())
        assert unfinished[-1] not in kept and list(root.glob(f"{kind}/.tmp-{unfinished[-1]}-*"))
        for key in kept:
            artifact = store.artifact(key)
            assert all((artifact.folder / name).exists() for name in artifact.record["files"])
    assert {record["kind"] for record in kept.values()} >= {"prepare", "weak", "label"}

    assert main([str(spec), "--local"]) == 0
    records = Store.open(root).records([*kept, *unfinished])
    assert records.keys() == {*kept, *unfinished}
    assert {key: records[key] for key in kept} == kept  # none of them was computed again
    assert not list(root.glob("weak/.tmp*")) and not list(root.glob("student/.tmp*"))
    assert main([str(spec), "--local", "--store", str(tmp_path / "straight")]) == 0
    assert scores(root) == scores(tmp_path / "straight")


def test_5_weak_and_ceiling_never_see_the_students_loss(write_spec, tmp_path):
    def steps(loss):
        plan = build(load(write_spec(grid__loss=[loss], grid__confidence_weight=[0.5])))
        return {step.key for step in plan if step.kind.name in ("weak", "ceiling")}

    assert steps("reverse_kl") == steps("forward_ce") == steps("pearson_chi2")


def test_6_long_texts_are_cut_not_dropped_and_all_models_score_the_same_rows(write_spec, tmp_path):
    assert main([str(write_spec(training__max_length_tokens=8)), "--local"]) == 0
    rows = pq.read_table(tmp_path / "store/predictions").to_pylist()
    scored = {}
    for row in rows:
        scored.setdefault(row["key"], set()).add(row["row_id"])
    assert {frozenset(ids) for ids in scored.values()} == {frozenset(scored[rows[0]["key"]])}
    assert len(scored[rows[0]["key"]]) == 32
    store = Store.open(tmp_path / "store")
    records = store.records(store.finished()).values()
    cut = [r["metrics"]["truncated_rows"] for r in records if r["kind"] == "features"]
    assert all(counts == {"ground_truth": 48, "weak": 40, "test": 32} for counts in cut)


def test_7_labels_are_joined_by_row_id(finished, tmp_path):
    """The stored labels are shuffled on disk; students come out the same."""
    before = scores(tmp_path / "store")
    (labels,) = tmp_path.glob("store/label/*/soft_labels.parquet")
    table = pq.read_table(labels)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), labels)
    record = json.loads((labels.parent / "record.json").read_text())
    record["files"][labels.name] = labels.stat().st_size  # else it would count as damaged
    (labels.parent / "record.json").write_text(json.dumps(record))
    for folder in [*tmp_path.glob("store/student/*"), *tmp_path.glob("store/evaluate/student*")]:
        folder.rename(tmp_path / f"gone-{folder.name}")
    assert main([str(finished), "--local"]) == 0
    assert scores(tmp_path / "store") == before


def test_8_a_missing_score_is_missing_not_zero(write_spec, tmp_path):
    spec = write_spec(
        grid__trainable=["full"],
        grid__noise_ratio=[0.0],
        training__weak={"learning_rate": 1e30},
    )
    assert main([str(spec), "--local"]) == 1
    for row in results(tmp_path / "store"):
        assert row["status"] == "blocked" and "weak" in row["error"]
        assert row["student_accuracy"] is None and row["weak_accuracy"] is None
        assert row["pgr"] is None and row["gain"] is None
        assert row["ceiling_accuracy"] is not None
