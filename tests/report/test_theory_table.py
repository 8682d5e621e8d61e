"""A study's students against theory: verdicts where it applies, elsewhere the reason for none."""

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.testing.specs import TINY_MODEL, tiny_config, tiny_spec
from w2s_ray.report.page import Figure, Table, Text
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.report.theory_table import outside_reason, theory_table
from w2s_ray.statistics.decomposition import mean
from w2s_ray.statistics.theory import OUTSIDE, largest_ratio
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

CHANGES: dict[str, Any] = {
    "data": {
        "pairs": {
            "kind": "preference",
            "source": "generate:agreement",
            "sizes": {"ground_truth": 400, "weak": 300, "test": 32},
        }
    },
    "models": {
        "small": {**TINY_MODEL, "config": tiny_config(8)},
        "large": {**TINY_MODEL, "config": tiny_config(16)},
    },
    "grid": {
        "pair": [["small", "large"]],
        "loss": ["forward_kl", "forward_ce", "reverse_kl", "jeffreys"],
        "noise_ratio": [0.2],
        "trainable": ["last_layer"],
        "seed": [0],
        "include": [
            {"loss": ["forward_kl"], "anchor": [0.1]},
            {"loss": ["forward_kl"], "example_weight": ["confidence"]},
        ],
    },
    "controls": ["weak_student"],
}


def run(folder: Path, solver: str, **changes: Any) -> Store:
    spec = tiny_spec(**CHANGES, training__solver=solver, **changes)
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    return Store.open(str(folder / "store"))


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run(tmp_path_factory.mktemp("solved"), "newton")


def by_loss(store: Store) -> dict[str, dict[str, Any]]:
    """The plain students of the grid."""
    rows = theory_table(store, "tiny").to_pylist()
    plain = [r for r in rows if not (r["control"] or r["anchor"] or r["example_weight"] != "none")]
    return {row["loss"]: row for row in plain}


def probabilities(store: Store, key: str) -> dict[str, np.ndarray]:
    table = pq.read_table(f"{store.uri}/train_predictions/tiny.parquet").to_pylist()
    logits = {r["row_id"]: np.array(r["logits"], float) for r in table if r["key"] == key}
    return {row_id: np.exp(z) / np.exp(z).sum() for row_id, z in logits.items()}


def test_a_row_for_each_cell_in_the_order_of_the_results(solved: Store) -> None:
    results = pq.read_table(f"{solved.uri}/results/tiny.parquet")
    assert theory_table(solved, "tiny")["key"].to_pylist() == results["key"].to_pylist()
    assert results["converged"].null_count == 0


@pytest.mark.parametrize("loss", ["forward_kl", "forward_ce"])
def test_the_identity_holds_for_a_solved_student(solved: Store, loss: str) -> None:
    row = by_loss(solved)[loss]
    assert (row["statement"], row["status"], row["reason"]) == ("identity", "holds", None)
    assert row["rows"] == 300 and row["slack"] is None
    assert abs(row["residual"]) <= row["tolerance"] < 1e-3
    assert row["reversed_gain"] - row["residual"] == pytest.approx(row["misfit_forward"], rel=1e-2)


def test_of_theorem_2_there_is_a_sign_with_its_interval(solved: Store) -> None:
    row = by_loss(solved)["reverse_kl"]
    table = pq.read_table(f"{solved.uri}/train_predictions/tiny.parquet").to_pylist()
    labels = {r["row_id"]: np.array(r["soft_label"]) for r in table if r["key"] == row["key"]}
    results = pq.read_table(f"{solved.uri}/results/tiny.parquet").to_pylist()
    (cell,) = (r for r in results if r["key"] == row["key"])
    student, ceiling = (probabilities(solved, cell[name]) for name in ("key", "ceiling_key"))
    slacks = []
    for row_id, w in labels.items():
        w, s, f = np.clip(w, 1e-3, 1 - 1e-3), student[row_id], ceiling[row_id]
        slacks.append((f * np.log(s / w)).sum() - (s * np.log(s / w)).sum())
    assert (row["statement"], row["reason"]) == ("theorem 2", None)
    assert row["slack"] == pytest.approx(np.mean(slacks), abs=1e-6)
    assert row["slack_low"] < row["slack"] < row["slack_high"]
    expected = mean(np.array(slacks)[None]).interval()
    assert (row["slack_low"], row["slack_high"]) == pytest.approx(expected, rel=0.1)
    signs = {(True, True): "positive", (False, False): "negative"}
    ends = (row["slack_low"] > 0, row["slack_high"] > 0)
    assert row["status"] == signs.get(ends, "undecided")


def test_whatever_else_shapes_a_student_is_outside(solved: Store) -> None:
    rows = theory_table(solved, "tiny").to_pylist()
    reasons = {row["reason"] for row in rows if row["status"] == OUTSIDE}
    assert {
        "loss jeffreys: no statement about its minimum",
        "anchor 0.1: the minimum is of another objective",
        "example_weight confidence: the minimum is of another objective",
        "the control weak_student stands in the student's place",
    } <= reasons
    for row in rows:
        assert (row["status"] == OUTSIDE) == (row["reason"] is not None)
        if row["status"] == OUTSIDE:
            assert row["residual"] is row["slack"] is None
        assert row["ratio_forward"] <= row["largest_ratio"] == largest_ratio(1e-3)
        assert row["ratio_reverse"] <= row["largest_ratio"]


def test_a_student_trained_by_steps_is_outside(tmp_path: Path) -> None:
    store = run(tmp_path, "sgd", execution={"train_predictions": True})
    rows = theory_table(store, "tiny").to_pylist()
    assert {row["status"] for row in rows} == {OUTSIDE}
    assert by_loss(store)["forward_kl"]["reason"].startswith("trained by optimizer steps")
    assert all(row["gain"] is not None for row in rows)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"trainable": "full"}, "trainable full: the ceiling is not a head"),
        ({"trainable": "lora"}, "trainable lora: the ceiling is not a head"),
        ({"converged": False}, "the solver did not converge"),
        ({"confidence_weight": 0.5}, "confidence_weight 0.5"),
        ({"label_clip": None}, "label_clip is not recorded"),
    ],
)
def test_why_a_cell_is_outside(solved: Store, changed: dict[str, Any], reason: str) -> None:
    results = pq.read_table(f"{solved.uri}/results/tiny.parquet").to_pylist()
    (cell,) = (
        r for r in results if r["loss"] == "reverse_kl" and not r["control"] and not r["anchor"]
    )
    assert outside_reason(cell) is None
    assert (outside_reason(cell | changed) or "").startswith(reason)
    without = {name: value for name, value in cell.items() if name != "converged"}
    assert "run the study again" in (outside_reason(without) or "")


def test_the_page_has_these_numbers_and_a_query_that_recomputes_them(solved: Store) -> None:
    page = study_page(solved, "tiny", Choices())
    (section,) = (section for section in page.sections if section.anchor == "theory")
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    (figure,) = (block for block in section.blocks if isinstance(block, Figure))
    found = duckdb.sql(table.query)
    again = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    by_key = {row["key"]: row for row in again}
    rows = theory_table(solved, "tiny").to_pylist()
    students = [row for row in rows if not row["control"]]
    assert len(table.rows) == len(students) == len(by_key)
    judged = [row for row in students if row["status"] != OUTSIDE]
    assert {row["loss"] for row in judged} == {"forward_kl", "forward_ce", "reverse_kl"}
    for row in students:
        for name in ("residual", "slack", "gain", "misfit_forward", "misfit_reverse"):
            if row[name] is not None:
                assert by_key[row["key"]][name] == pytest.approx(row[name], abs=1e-9)
    dots = sorted(dot for line in figure.lines for dot in zip(line.x, line.y, strict=True))
    assert dots == sorted((row["misfit_reverse"], row["gain"]) for row in students)
    texts = [cell.text for row in table.rows for cell in row]
    assert "holds" in texts
    assert f"{OUTSIDE}: loss jeffreys: no statement about its minimum" in texts


def test_the_page_of_a_study_trained_by_steps_says_why_there_is_no_theory(store: Store) -> None:
    page = study_page(store, "tiny", Choices())
    (section,) = (section for section in page.sections if section.anchor == "theory")
    (text,) = section.blocks
    assert isinstance(text, Text) and "trained by optimizer steps" in text.text


def test_the_example_of_the_page_runs(
    solved: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(Path(solved.uri).parent)
    exec(compile(example.replace('"theory"', '"tiny"'), "docs/theory.md", "exec"), {})
    assert OUTSIDE in capsys.readouterr().out
