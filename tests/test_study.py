"""The command, end to end, on random models and generated pairs: what a researcher sees."""

import json
import os
import re
import shutil
import signal
import time

import pyarrow.parquet as pq
import pytest

from w2s_ray.store.artifacts import Store
from w2s_ray.study import main


def test_a_study_runs_and_run_again_does_nothing(write_spec, tmp_path, capsys):
    spec = write_spec()
    assert main([str(spec), "--local"]) == 0
    first = capsys.readouterr().out
    assert "student accuracy, %" in first and "reverse_kl" in first and "noise 0.25" in first
    results = pq.read_table(tmp_path / "store/results").to_pylist()
    assert len(results) == 4 == len({row["key"] for row in results})
    assert {row["status"] for row in results} == {"done"}
    assert all(0 <= row["student_accuracy"] <= 1 and row["seconds"] > 0 for row in results)

    assert main([str(spec), "--local"]) == 0
    assert "0 steps to do" in capsys.readouterr().out


@pytest.mark.long
def test_a_run_leaves_a_report_and_one_that_does_nothing_leaves_it_alone(
    write_spec, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("W2S_RAY_NO_REPORT")
    spec, page = write_spec(), tmp_path / "store/reports/tiny/index.html"
    assert main([str(spec), "--local", "--no-report"]) == 0
    assert not page.exists() and "\nreport " not in capsys.readouterr().out
    assert main([str(spec), "--local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(page)
    assert "Study tiny" in page.read_text() and (page.parent / "tables/accuracy.csv").exists()
    written = page.stat().st_mtime_ns
    assert main([str(spec), "--local"]) == 0
    assert page.stat().st_mtime_ns == written
    assert main([str(spec), "--local", "--report"]) == 0
    assert page.stat().st_mtime_ns > written
    more = write_spec(grid__seed=[0, 1])
    assert main([str(more), "--local"]) == 0
    assert page.stat().st_mtime_ns > written and "over 32 test rows and 2 seeds" in page.read_text()


def test_results_are_rebuilt_from_the_store_byte_for_byte(finished, tmp_path):
    tables = [tmp_path / "store" / kind / "tiny.parquet" for kind in ("results", "predictions")]
    before = [path.read_bytes() for path in tables]
    for path in tables:
        path.unlink()
    assert main([str(finished), "--local"]) == 0
    assert [path.read_bytes() for path in tables] == before


@pytest.mark.usefixtures("finished")
def test_predictions_hold_one_row_for_each_test_row_and_model(tmp_path):
    rows = pq.read_table(tmp_path / "store/predictions").to_pylist()
    assert len(rows) == 32 * (1 + 1 + 4)
    assert len({(row["key"], row["row_id"]) for row in rows}) == len(rows)
    assert {row["model_role"] for row in rows} == {"weak", "ceiling", "student"}


def test_plan_tells_what_will_be_done_and_what_sharing_saves(write_spec, capsys):
    spec = write_spec()
    assert main([str(spec), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cells"] == 4
    assert plan["steps"] == {
        "prepare": 1, "features": 2, "weak": 1, "label": 1, "ceiling": 1, "student": 4,
        "evaluate": 7,
    }  # fmt: skip
    assert (plan["done"], plan["todo"]) == (0, 17)
    # alone, a cell needs: rows, 2 features, weak, label, ceiling, student, 4 evaluations
    assert plan["naive_steps"] == 4 * 11
    assert plan["flops"] > 0
    assert plan["axes"]["loss"] == ["forward_kl", "reverse_kl"]
    assert plan["axes"]["noise_ratio"] == [0.0, 0.25]


@pytest.mark.usefixtures("finished")
def test_only_what_is_missing_runs_when_the_grid_grows(write_spec, capsys):
    grown = write_spec(grid__seed=[0], grid__loss=["forward_kl", "reverse_kl", "jeffreys"])
    assert main([str(grown), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["todo_by_kind"] == {"student": 2, "evaluate": 2}


def test_a_failed_cell_stops_nothing_else_and_is_in_the_results(write_spec, tmp_path, capsys):
    spec = write_spec(
        grid__trainable=["full"],
        grid__include=[{"learning_rate": [1e30], "loss": ["forward_kl"], "noise_ratio": [0.0]}],
    )
    assert main([str(spec), "--local"]) == 1
    assert "failed: student" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "store/results").to_pylist()
    failed = [row for row in rows if row["status"] != "done"]
    assert len(rows) == 5 and len(failed) == 1
    assert "at step 1" in failed[0]["error"] and failed[0]["student_accuracy"] is None


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_models_train_whole_or_by_adapters(write_spec, tmp_path, trainable):
    spec = write_spec(
        grid__trainable=[trainable], grid__loss=["reverse_kl"], grid__noise_ratio=[0.0]
    )
    assert main([str(spec), "--local"]) == 0
    (row,) = pq.read_table(tmp_path / "store/results").to_pylist()
    assert row["tokens"] > 0 and row["peak_memory_bytes"] > 0


@pytest.mark.long
def test_ctrl_c_says_how_to_go_on_and_costs_no_finished_step(write_spec, tmp_path, forks):
    spec = write_spec(grid__seed=list(range(40)))
    run = forks.begin(spec, "--local", folder=tmp_path)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("store/student/[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(run, signal.SIGINT)
    code, _, output = forks.ended(run, tmp_path)
    assert code == 130
    assert "rerun the same command to resume" in output and "Traceback" not in output
    assert list(tmp_path.glob("store/student/[!.]*/record.json"))
    # Between two lines an interrupt may leave an empty folder, which the next step removes.
    backend = Store.open(tmp_path / "store").backend
    for kind in {path.parent.name for path in tmp_path.glob("store/*/.tmp*")}:
        backend.workspace(kind, "next").rmdir()
    assert not list(tmp_path.glob("store/*/.tmp*"))


@pytest.mark.parametrize("classes", [["bad", "good"], ["cat", "dog", "owl"]])
@pytest.mark.parametrize("trainable", ["last_layer", "full"])
def test_texts_of_two_and_more_classes(write_spec, tmp_path, classes, trainable):
    rows = [{"text": f"it says {classes[n % len(classes)]} {n}", "label": n % len(classes)}
            for n in range(90)]  # fmt: skip
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sizes = {"ground_truth": 30, "weak": 30, "test": 30}
    spec = write_spec(
        data={"texts": {"kind": "classification", "source": "texts.jsonl", "sizes": sizes}},
        grid__trainable=[trainable],
        grid__loss=["reverse_kl"],
        grid__confidence_weight=[0.5],
    )
    assert main([str(spec), "--local"]) == 0
    rows = pq.read_table(tmp_path / "store/predictions").to_pylist()
    assert all(len(row["probs"]) == len(classes) for row in rows)
    assert all(sum(row["probs"]) == pytest.approx(1) for row in rows)
    assert all((row["prob"] is None) == (len(classes) > 2) for row in rows)


def test_a_failed_ceiling_is_told_and_exits_with_1(write_spec, tmp_path, capsys):
    spec = write_spec(
        grid__trainable=["full"],
        grid__learning_rate=[1e30],
        training__weak={"learning_rate": 1e-3},
    )
    assert main([str(spec), "--local"]) == 1
    assert "4 of 4 cells are incomplete" in capsys.readouterr().out


def test_what_results_are_read_from_is_made_again(finished, tmp_path, capsys):
    for kind in ("label", "features"):
        shutil.rmtree(tmp_path / "store" / kind)
    assert main([str(finished), "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["todo_by_kind"] == {"features": 1, "label": 1}


def test_finished_steps_without_an_export_are_told(write_spec, tmp_path, capsys):
    note = "finished steps without an export: 1 ceiling, 2 student"
    one = {"grid__trainable": ["full"], "grid__noise_ratio": [0.0]}
    wanted = {"execution": {"export_models": ["student", "ceiling"]}}
    assert main([str(write_spec(**one)), "--local"]) == 0
    assert "without an export" not in capsys.readouterr().out
    assert main([str(write_spec(**one, **wanted)), "--local"]) == 0
    assert note in capsys.readouterr().out
    for kind in ("student", "ceiling"):
        shutil.rmtree(tmp_path / "store" / kind)
    assert main([str(write_spec(**one, **wanted)), "--local"]) == 0
    exports = sorted(map(str, tmp_path.glob("store/*/*/export")))
    assert len(exports) == 3
    output = capsys.readouterr().out
    assert sorted(re.findall(r"^export +(.*)$", output, re.MULTILINE)) == exports
    assert main([str(write_spec(**one, **wanted)), "--local", "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)["exports"]) == exports
    capsys.readouterr()
    assert main([str(write_spec(**one, **wanted)), "--local"]) == 0
    assert "without an export" not in capsys.readouterr().out


def test_axes_without_effect_are_one_computation_and_a_row_for_each_cell(
    write_spec, tmp_path, capsys
):
    spec = write_spec(
        grid__loss=["forward_kl"],
        grid__noise_ratio=[0.0],
        grid__noise_strength=[-1.0, 0.5],
        grid__confidence_warmup=[0.1, 0.3],
    )
    assert main([str(spec), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cells"], plan["steps"]["student"], plan["cells_sharing_students"]) == (4, 1, 3)
    assert main([str(spec), "--plan"]) == 0
    assert "3 cells have the student of another cell" in capsys.readouterr().out
    assert main([str(spec), "--local"]) == 0
    rows = pq.read_table(tmp_path / "store/results").to_pylist()
    axes = {(row["noise_strength"], row["confidence_warmup"]) for row in rows}
    assert axes == {(-1.0, 0.1), (-1.0, 0.3), (0.5, 0.1), (0.5, 0.3)} and len(rows) == 4
    assert len({row["student_accuracy"] for row in rows}) == len({r["key"] for r in rows}) == 1
    assert {row["status"] for row in rows} == {"done"}
    predictions = pq.read_table(tmp_path / "store/predictions").to_pylist()
    assert len({(row["key"], row["row_id"]) for row in predictions}) == len(predictions) == 3 * 32
