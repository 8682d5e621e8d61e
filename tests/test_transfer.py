"""Further test sets, end to end: scores of every model, and what does not change."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.testing.specs import TINY_MODEL, tiny_config
from w2s_ray.data import agreement
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load
from w2s_ray.store.columns import MODEL_ROLES, SCORES
from w2s_ray.study import main

SAME = [
    *(f"{role}_{score.name}" for role in MODEL_ROLES for score in SCORES),
    *("pgr", "gain", "misfit_forward", "misfit_reverse", "agreement", "test_rows"),
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def pairs(folder: Path) -> dict[str, Any]:
    """Three given splits of generated pairs."""
    rows = [
        {name: value for name, value in row.items() if name != "phenomenon"}
        for row in map(dict, agreement.generate(0, 88))
    ]
    parts = {"ground_truth": rows[:32], "weak": rows[32:64], "test": rows[64:]}
    return {
        "kind": "preference",
        "splits": {name: write(folder / f"{name}.jsonl", of) for name, of in parts.items()},
    }


def texts(folder: Path, classes: int) -> dict[str, Any]:
    """Three given splits of texts of ``classes`` classes."""
    starts = {"ground_truth": 0, "weak": 40, "test": 80}
    return {
        "kind": "classification",
        "splits": {
            name: write(
                folder / f"{name}.jsonl",
                [
                    {"text": f"{n % classes} is said in line {n}", "label": n % classes}
                    for n in range(start, start + 30)
                ],
            )
            for name, start in starts.items()
        },
    }


def tables(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    read = (
        pq.read_table(folder / f"store/{name}/tiny.parquet") for name in ("results", "transfer")
    )
    results, transfer = (table.to_pylist() for table in read)
    return results, transfer


@pytest.mark.long
@pytest.mark.parametrize("trainable", ["last_layer", "lora", "full"])
@pytest.mark.parametrize("kind", ["pairs", "five classes"])
def test_the_own_test_file_gives_the_own_scores(write_spec, tmp_path, trainable, kind):
    data = pairs(tmp_path) if kind == "pairs" else texts(tmp_path, 5)
    more = {**data, "tests": {"own": "test.jsonl"}}
    grid = {"grid__trainable": [trainable], "grid__noise_ratio": [0.0]}
    spec = write_spec(data={"set": more}, **grid)
    assert main([str(spec), "--local"]) == 0
    results, transfer = tables(tmp_path)
    assert len(transfer) == len(results) == 2
    for own, further in zip(results, transfer, strict=True):
        assert further["test_set"] == "own" and further["status"] == "done"
        assert further["trained_on_rows"] == 0
        expected = {name: own[name] for name in SAME}
        given = {name: further[name] for name in SAME}
        assert given == (
            expected if trainable == "last_layer" else pytest.approx(expected, abs=1e-5)
        )
        assert own["ood_gain_mean"] == pytest.approx(own["gain"], abs=1e-5)
        assert own["ood_accuracy_mean"] == pytest.approx(own["student_accuracy"])


def test_a_set_that_is_added_changes_no_key_and_runs_its_own_steps_only(
    write_spec, tmp_path, capsys
):
    data = pairs(tmp_path)
    write(tmp_path / "far.jsonl", [{"prompt": "", **_pair(n)} for n in range(12)])
    first = build(load(write_spec(data={"set": data}))).steps
    spec = write_spec(data={"set": data})
    assert main([str(spec), "--local"]) == 0
    assert not (tmp_path / "store/transfer/tiny.parquet").exists()

    spec = write_spec(data={"set": {**data, "tests": {"far": "far.jsonl"}}})
    assert first.keys() <= build(load(spec)).steps.keys()
    capsys.readouterr()
    assert main([str(spec), "--plan", "--json"]) == 0
    todo = json.loads(capsys.readouterr().out)["todo_by_kind"]
    assert todo == {"test_set": 1, "test_features": 2, "predict": 6, "evaluate": 6}
    assert main([str(spec), "--local"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy on further test sets, %" in shown and "set-far: what was read" in shown

    paths = [tmp_path / f"store/{name}/tiny.parquet" for name in ("results", "transfer")]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert main([str(spec), "--local", "--json"]) == 0
    assert [path.read_bytes() for path in paths] == before
    assert json.loads(capsys.readouterr().out)["transfer"] == str(paths[1])

    assert main([str(write_spec(data={"set": data})), "--local"]) == 0
    assert not paths[1].exists()


def _pair(number: int) -> dict[str, str]:
    return {"chosen": f"They say {number} things.", "rejected": f"They says {number} things."}


def test_a_model_without_weights_is_named_before_and_leaves_its_cell_done(
    write_spec, tmp_path, capsys
):
    data, grid = pairs(tmp_path), {"grid__trainable": ["lora"], "grid__noise_ratio": [0.0]}
    assert main([str(write_spec(data={"set": data}, **grid)), "--local"]) == 0
    capsys.readouterr()
    write(tmp_path / "far.jsonl", [{"prompt": "", **_pair(n)} for n in range(12)])
    spec = write_spec(data={"set": {**data, "tests": {"far": "far.jsonl"}}}, **grid)
    assert main([str(spec), "--local"]) == 1
    shown = capsys.readouterr().out
    assert "the weights of 3 finished models were not kept" in shown
    assert shown.index("were not kept") < shown.index("failed: predict")
    results, transfer = tables(tmp_path)
    assert {(row["status"], row["error"]) for row in results} == {("done", None)}
    assert all(row["ood_gain_mean"] is None for row in results)
    assert {row["status"] for row in transfer} == {"failed"}
    assert all("delete that folder of the store" in row["error"] for row in transfer)
    assert all(row["weak_accuracy"] is not None for row in transfer)


def test_trained_rows_are_said_and_all_of_them_are_refused(write_spec, tmp_path, capsys):
    data = pairs(tmp_path)
    lines = (tmp_path / "weak.jsonl").read_text().splitlines()
    (tmp_path / "some.jsonl").write_text(
        "\n".join([*lines[:3], json.dumps({"prompt": "", **_pair(1)})])
    )
    spec = write_spec(data={"set": {**data, "tests": {"some": "some.jsonl"}}})
    assert main([str(spec), "--local"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "set-some: warning: 3 of 4 rows are no fair test" in shown
    assert {row["trained_on_rows"] for row in tables(tmp_path)[1]} == {3}

    spec = write_spec(data={"set": {**data, "tests": {"weak": "weak.jsonl"}}})
    assert main([str(spec), "--local"]) == 2
    assert "expected some that no model is trained on" in capsys.readouterr().err


@pytest.mark.parametrize("combine", ["mean", "learned"])
def test_an_ensemble_is_scored_as_on_its_own_rows(write_spec, tmp_path, combine):
    data = {**pairs(tmp_path), "tests": {"own": "test.jsonl"}}
    model = {**TINY_MODEL, "config": tiny_config(16)}
    models = {
        **{name: {**model, "init_seed": seed} for seed, name in enumerate("abc")},
        "large": {**TINY_MODEL, "config": tiny_config(32)},
    }
    spec = write_spec(
        data={"set": data},
        models=models,
        grid__pair=[[["a", "b", "c"], "large"]],
        grid__combine=[combine],
        grid__loss=["reverse_kl"],
        grid__noise_ratio=[0.0],
    )
    assert main([str(spec), "--local"]) == 0
    ((own,), (further,)) = tables(tmp_path)
    assert {name: further[name] for name in SAME} == {name: own[name] for name in SAME}


@pytest.mark.long
def test_controls_are_scored_as_on_their_own_rows(write_spec, tmp_path, capsys):
    spec = write_spec(
        data={"set": {**pairs(tmp_path), "tests": {"own": "test.jsonl"}}},
        controls=[
            *("untrained", "weak_student", "strong_on_weak_rows", "shuffled_labels"),
            *("tfidf", "length", "prompt_only"),
        ],
        validation={"rows": 8},  # which no baseline learns from
        grid__loss=["reverse_kl"],
        grid__noise_ratio=[0.0],
        grid__trainable=["last_layer", "lora"],
    )
    assert main([str(spec), "--local"]) == 0
    results, transfer = tables(tmp_path)
    assert len(transfer) == len(results) == 16
    for own, further in zip(results, transfer, strict=True):
        assert own["control"] == further["control"]
        expected = {name: own[name] for name in SAME}
        assert {name: further[name] for name in SAME} == pytest.approx(expected, abs=1e-5)
    assert "tfidf" in capsys.readouterr().out.split("accuracy on further test sets")[1]


def test_the_rule_chooses_once_and_its_choice_is_scored_on_further_sets(
    write_spec, tmp_path, capsys
):
    spec = write_spec(
        data={"set": {**pairs(tmp_path), "tests": {"own": "test.jsonl"}}},
        validation={"rows": 12, "labels": "ground_truth"},
        select={"over": ["learning_rate"], "by": "ground_truth"},
        controls=["strong_on_weak_rows"],
        grid__learning_rate=[1e-3, 1.0],
        grid__readout_block=[None, 1],
        grid__loss=["reverse_kl", "forward_kl"],
        grid__noise_ratio=[0.0],
        grid__trainable=["last_layer"],
    )
    assert main([str(spec), "--local"]) == 0
    results, transfer = tables(tmp_path)
    assert len(transfer) == len(results) == 12
    same = [*SAME, "selected", "selected_by", "selected_over", "ceiling_key"]
    for own, further in zip(results, transfer, strict=True):
        assert {name: further[name] for name in same} == {name: own[name] for name in same}
    assert sum(row["selected"] for row in transfer) == 6
    assert len({row["ceiling_key"] for row in transfer}) == 2  # the best of each block
    shown = " ".join(capsys.readouterr().out.split("accuracy on further test sets, %")[1].split())
    assert "learning rate chosen with the true labels" in shown


def test_heads_of_one_backbone_score_a_set_together_and_other_models_alone(write_spec, tmp_path):
    data = {"set": {**pairs(tmp_path), "tests": {"own": "test.jsonl"}}}
    spec = write_spec(data=data, grid__trainable=["last_layer", "lora"])
    predicting = [step for step in build(load(spec)) if step.kind.name == "predict"]
    fusions = [step.fusion for step in predicting]
    assert fusions.count(None) == 6 and len(set(fusions) - {None}) == 2
    kept = {"weak", "student", "ceiling"}
    trained = [step for step in build(load(spec)) if step.kind.trains]
    assert all(kept <= {*step.execution.keep_models} for step in trained if step.backbone)
