"""Steps that run together are as good as alone: same numbers, own records, own failures."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

from w2s_ray.plan.build import build
from w2s_ray.plan.schedule import Schedule
from w2s_ray.running import runner
from w2s_ray.running.runner import execute, execute_group
from w2s_ray.spec.loading import load
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

CONTENTS = ("test.parquet", "curve.parquet", "train.parquet", "head.safetensors")
GRID = {
    "grid__loss": ["forward_ce", "reverse_kl"],
    "grid__seed": [0, 1],
    "grid__confidence_weight": [0.0, 0.5],
}

# Runs the groups of a study in order; before the groups of argv[3] it says so and waits.
WORK = """
import sys
from pathlib import Path
from w2s_ray.plan.build import build
from w2s_ray.plan.schedule import Schedule
from w2s_ray.spec.loading import load
from w2s_ray.steps.context import Context
from w2s_ray.running.runner import execute_group
from w2s_ray.store.artifacts import Store
schedule, store = Schedule(build(load(Path(sys.argv[1]))).steps), Store.open(sys.argv[2])
while group := schedule.start():
    if group[0].kind.name == sys.argv[3]:
        print("ready", flush=True)
        sys.stdin.readline()
    outcomes = execute_group(group, store, Context())
    for step in group:
        assert not isinstance(outcomes[step.key], Exception), outcomes[step.key]
        schedule.succeed(step.key)
    print(len(group), group[0].kind.name, flush=True)
"""


def plan_of(spec):
    return build(load(spec))


def groups(plan):
    schedule = Schedule(plan.steps)
    while group := schedule.start():
        yield group
        for step in group:
            schedule.succeed(step.key)


def until(plan, store, kind):
    """Runs all groups before the first one that starts with ``kind``, and returns that one."""
    for group in groups(plan):
        if group[0].kind.name == kind:
            return group
        execute_group(group, store, Context())
    raise AssertionError(kind)


def work(spec, store, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(spec), str(store), kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    return process


def wait_for(process, line):
    for output in process.stdout:
        if output == line:
            return
    raise AssertionError(f"it ended before {line!r}")


def rows(root):
    return pq.read_table(root / "results").to_pylist()


def test_a_group_gives_what_each_of_its_steps_gives_alone(write_spec, tmp_path):
    spec = write_spec(**GRID)
    plan = plan_of(spec)
    together, alone = (Store.open(tmp_path / name) for name in ("together", "alone"))
    sizes = []
    for group in groups(plan):
        execute_group(group, together, Context())
        sizes.append((group[0].kind.name, len(group)))
    assert ("student", 16) in sizes and ("weak", 2) in sizes and ("evaluate", 22) in sizes
    for step in plan:
        execute(step, alone)
    for step in plan:
        ours, theirs = together.artifact(step.key), alone.artifact(step.key)
        assert ours.record["metrics"].keys() == theirs.record["metrics"].keys()
        for part in ("kind", "key", "slug", "version", "config", "inputs"):
            assert ours.record[part] == theirs.record[part]
        for name in CONTENTS:
            assert ours.has(name) == theirs.has(name)
        if ours.has("curve.parquet"):
            left, right = (artifact.table("test.parquet") for artifact in (ours, theirs))
            assert left["row_id"].equals(right["row_id"])
            for one, other in zip(
                left["probs"].to_pylist(), right["probs"].to_pylist(), strict=True
            ):
                assert one == pytest.approx(other, abs=1e-6)


def test_a_record_says_how_many_shared_the_run_and_their_times_sum_to_it(write_spec, tmp_path):
    plan, store = plan_of(write_spec(**GRID)), Store.open(tmp_path / "store")
    group = until(plan, store, "student")
    started = time.monotonic()
    execute_group(group, store, Context())
    took = time.monotonic() - started
    records = [store.record(step.key) for step in group]
    assert {record["execution"]["fused"] for record in records} == {16}
    shares = [record["metrics"]["seconds"] for record in records]
    assert 0 < max(shares) < took
    prepare = store.record(next(step.key for step in plan if step.kind.name == "prepare"))
    assert "fused" not in prepare["execution"]


def test_progress_ends_with_all_that_is_written(write_spec, tmp_path):
    plan, store = plan_of(write_spec(**GRID)), Store.open(tmp_path / "store")
    output = []
    execute_group(until(plan, store, "student"), store, Context(progress=output.append))
    assert all(0 < numbers["step"] <= numbers["steps"] for numbers in output)
    assert output[-1] == {"step": 16, "steps": 16, "unit": "written"}


def test_a_bad_cell_fails_alone(write_spec, tmp_path, capsys):
    include = [{"learning_rate": [1e38], "loss": ["forward_kl"], "noise_ratio": [0.0]}]
    spec = write_spec(grid__include=include)
    assert main([str(spec), "--local"]) == 1
    assert "failed: student" in capsys.readouterr().out
    results = rows(tmp_path / "store")
    bad = [row for row in results if row["status"] == "failed"]
    assert len(results) == 5 and len(bad) == 1 and bad[0]["learning_rate"] == 1e38
    assert "FloatingPointError" in bad[0]["error"]
    store = Store.open(tmp_path / "store")
    fused = [store.record(r["key"])["execution"]["fused"] for r in results if r["status"] == "done"]
    assert fused == [5] * 4, "it failed in the run of the others"


def test_damaged_labels_of_one_teacher_fail_its_students_only(write_spec, tmp_path):
    plan, store = plan_of(write_spec(grid__seed=[0, 1])), Store.open(tmp_path / "store")
    group = until(plan, store, "student")
    damaged = group[0].inputs["label"]
    (store.artifact(damaged).folder / "soft_labels.parquet").unlink()
    outcomes = execute_group(group, store, Context())
    hit = {step.key for step in group if step.inputs["label"] == damaged}
    assert {key for key, o in outcomes.items() if isinstance(o, Exception)} == hit
    assert set(store.failures()) == hit and 0 < len(hit) < len(group)
    assert store.finished_among(outcomes) == set(outcomes) - hit


def test_what_a_group_shares_fails_all_of_it(write_spec, tmp_path):
    plan, store = plan_of(write_spec()), Store.open(tmp_path / "store")
    group = until(plan, store, "student")
    (store.artifact(group[0].inputs["features"]).folder / "weak.npy").unlink()
    outcomes = execute_group(group, store, Context())
    assert set(store.failures()) == set(outcomes) == {step.key for step in group}
    assert all("damaged" in note["error"] for note in store.failures().values())


@pytest.mark.long
@pytest.mark.slow  # as episodes of tests/faults/test_chaos.py do
def test_kill_9_amid_a_group_leaves_all_of_it_or_nothing(write_spec, tmp_path):
    spec = write_spec(**{**GRID, "grid__seed": list(range(20))})
    process = work(spec, tmp_path / "store", "student")
    wait_for(process, "ready\n")
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("store/student/*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = Store.open(tmp_path / "store")
    kept = {
        key: store.record(key) for key in store.finished() if store.record(key)["kind"] == "student"
    }
    assert len(kept) in (0, 160)
    assert store.listing("claims"), "claims of the dead stay behind"
    assert main([str(spec), "--local", "--store", str(tmp_path / "store")]) == 0
    results = rows(tmp_path / "store")
    assert len(results) == 160 and {row["status"] for row in results} == {"done"}
    for key, record in kept.items():
        assert store.record(key) == record
    assert {store.record(row["key"])["execution"]["fused"] for row in results} == {160}
    assert not store.listing("claims")
    assert not list(tmp_path.glob("store/*/.tmp*"))


@pytest.mark.long
def test_two_processes_that_race_over_a_group_compute_every_step_once(write_spec, tmp_path):
    spec = write_spec(**GRID)
    processes = [work(spec, tmp_path / "store", "student") for _ in range(2)]
    for process in processes:
        wait_for(process, "ready\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/*/record.json")}
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(60) for process in processes] == [0, 0]
    store = Store.open(tmp_path / "store")
    records = store.records(store.finished())
    assert len(records) == len(plan_of(spec).steps)
    students = [record for record in records.values() if record["kind"] == "student"]
    # Whoever computed n of the steps says so in n records: none was computed twice.
    by_process = {}
    for record in students:
        by_process.setdefault(record["provenance"]["pid"], []).append(record["execution"]["fused"])
    assert all(fused == [len(fused)] * len(fused) for fused in by_process.values())
    assert sum(map(len, by_process.values())) == 16
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert not store.listing("claims") and not list(tmp_path.glob("store/*/.tmp*"))


def test_ctrl_c_amid_a_group_gives_up_every_claim_and_draft(write_spec, tmp_path):
    plan, store = plan_of(write_spec(**GRID)), Store.open(tmp_path / "store")
    group = until(plan, store, "student")
    held = []

    def interrupt(numbers):
        held.append(len(store.listing("claims")))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_group(group, store, Context(progress=interrupt))
    assert held == [len({step.claim for step in group})]
    assert not store.listing("claims") and not list(tmp_path.glob("store/*/.tmp*"))
    assert not store.failures(), "an interrupted step has not failed"


def test_what_is_fused_is_told_by_the_plan_alone(write_spec):
    plan = plan_of(write_spec(grid__trainable=["last_layer", "full"]))
    for step in plan:
        head = step.config.as_json().get("training", {}).get("trainable") == "last_layer"
        of_head = step.kind.name == "label" and "features" in step.inputs
        assert (step.fusion is not None) == (head or of_head or step.kind.name == "evaluate")


@pytest.mark.long
def test_adapters_together_are_adapters_alone(write_spec, tmp_path):
    """Four students of one seed in passes of three and one, against each by itself."""
    probs, sizes = {}, {}
    for together in (1, 3):
        spec = write_spec(
            grid__trainable=["lora"],
            training__lora={"rank": 2},
            execution={"lora_together": together, "keep_models": ["student"]},
        )
        place = tmp_path / f"store{together}"
        assert main([str(spec), "--local", "--store", str(place)]) == 0
        store = Store.open(place)
        students = [step.key for step in plan_of(spec) if step.kind.name == "student"]
        sizes[together] = sorted(store.record(k)["execution"].get("fused", 1) for k in students)
        for key in students:
            folder = store.artifact(key).folder
            assert (folder / "model.safetensors").exists()
            rows = pq.read_table(folder / "test.parquet").to_pydict()
            probs[together, key] = [p for row in rows["probs"] for p in row]
    assert sizes == {1: [1, 1, 1, 1], 3: [1, 3, 3, 3]}
    for key in students:
        assert probs[3, key] == pytest.approx(probs[1, key], abs=1e-5)


def test_an_error_of_the_store_fails_what_it_kept_from_the_store_and_is_recorded(
    write_spec, tmp_path, monkeypatch
):
    """The claims of a group are given up with an error, after all but one step were committed."""
    monkeypatch.setattr(runner, "SMALLEST_BUNDLE", 17)
    plan, store = plan_of(write_spec(**GRID)), Store.open(tmp_path / "store")
    group = until(plan, store, "student")
    commit, claims = store.draft, store.claims
    missed = group[3].key

    def draft(step, execution, **options):
        if step.key == missed:
            raise OSError("no space left")
        return commit(step, execution, **options)

    @contextmanager
    def failing(keys):
        with claims(keys) as held:
            yield held
        raise OSError("the disk went away")

    monkeypatch.setattr(store, "draft", draft)
    monkeypatch.setattr(store, "claims", failing)
    outcomes = execute_group(group, store, Context())
    failed = {key for key, outcome in outcomes.items() if isinstance(outcome, Exception)}
    assert failed == {missed}
    assert set(store.failures()) == {missed}
    assert "no space left" in store.failures()[missed]["error"]
    assert store.finished_among(step.key for step in group) == {s.key for s in group} - {missed}


def test_a_store_that_cannot_be_claimed_fails_all_of_the_group_in_words(
    write_spec, tmp_path, monkeypatch
):
    plan, store = plan_of(write_spec(**GRID)), Store.open(tmp_path / "store")
    group = until(plan, store, "student")

    def refuse(keys):
        raise OSError("the disk went away")

    monkeypatch.setattr(store, "claims", refuse)
    outcomes = execute_group(group, store, Context())
    assert {str(outcome) for outcome in outcomes.values()} == {"the disk went away"}
    assert set(store.failures()) == {step.key for step in group}


def test_a_step_that_another_process_has_finished_in_the_meantime_has_not_failed(
    write_spec, tmp_path, monkeypatch
):
    """One that was stopped for so long that it was taken for dead finds its checkpoints gone."""
    plan, store = plan_of(write_spec()), Store.open(tmp_path / "store")

    def stopped(step, inputs, draft, context):
        with Store.open(store.uri).draft(step.identity, {}) as other:
            other.metrics["rows"] = 7
        raise FileNotFoundError("parts/0.npy")

    monkeypatch.setattr("w2s_ray.steps.prepare.run", stopped)
    (step,) = (step for step in plan if step.kind.name == "prepare")
    assert execute_group([step], store, Context()) == {step.key: {"rows": 7}}
    assert not store.failures()
