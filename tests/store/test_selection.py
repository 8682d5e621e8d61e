"""The rule chooses what a slow and independent implementation chooses, and says what it lacked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.specs import tiny_spec
from w2s_ray.store.artifacts import Store
from w2s_ray.store.predictions import write_predictions
from w2s_ray.store.results import (
    load_cells,
    load_select,
    results_table,
    save_cells,
    write_results,
)
from w2s_ray.store.selection import RULES, best, edges, groups, rule_for
from w2s_ray.study import main

LOWEST = {"weak_ce", "own_loss"}
COLUMN = {"ground_truth": "accuracy"}
values = st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), min_size=1, max_size=8)


@given(values, st.sampled_from(sorted(RULES)))
def test_a_rule_takes_the_first_best_score(scores: list[float | None], by: str) -> None:
    column = COLUMN.get(by, by)
    chosen = None
    for index, score in enumerate(scores):
        if score is None:
            continue
        if chosen is None or (score < scores[chosen] if by in LOWEST else score > scores[chosen]):
            chosen = index
    assert best([{column: score} for score in scores], by) == chosen


@pytest.mark.parametrize("by", RULES)
def test_what_learned_from_the_truth_is_chosen_by_it_and_shuffled_labels_never(by: str) -> None:
    assert rule_for("student", by) == by
    assert rule_for("ceiling", by) == rule_for("strong_on_weak_rows", by) == "ground_truth"
    assert rule_for("shuffled_labels", by) == ("weak_ce" if by == "ground_truth" else by)


def test_an_edge_needs_two_values() -> None:
    assert not edges(1, [1, 1]) and edges(1, [1, 2]) and edges(3, [1, 2, 3])
    assert not edges(2, [1, 2, 3])


def test_a_group_differs_only_in_what_is_chosen_over() -> None:
    cells = [
        {"loss": loss, "learning_rate": rate, "epochs": epochs, "seed": seed}
        for loss in "ab"
        for rate in (1.0, 0.1)
        for epochs in (2, 1)
        for seed in (0, 1)
    ]
    for over in (["learning_rate"], ["epochs", "step"], ["learning_rate", "epochs"], ["step"]):
        fixed = [name for name in cells[0] if name not in over]
        expected: dict[Any, list[int]] = {}
        for index, cell in enumerate(cells):
            expected.setdefault(tuple(cell[name] for name in fixed), []).append(index)
        found = groups(cells, over)
        assert sorted(map(sorted, found)) == sorted(expected.values())
        for group in found:
            rates = [(cells[i]["learning_rate"], cells[i]["epochs"]) for i in group]
            assert rates == sorted(rates)


RATES = (1e-5, 1e-4, 1e-3)
SELECT = {"over": ["learning_rate", "step"], "by": "weak_ce"}


def cells_over_rates(made: Any, rates: tuple[float, ...] = RATES) -> list[dict[str, Any]]:
    """The cells of a study at every rate, each with a student and a ceiling of its own."""
    cells = []
    for cell in made.cells:
        for rate in rates:
            keys = {
                role: key + f"{rate:e}"[0] + f"{rate:e}"[-1]
                if role.startswith(("student", "ceiling"))
                else key
                for role, key in cell["keys"].items()
            }
            cells.append({"cell": {**cell["cell"], "learning_rate": rate}, "keys": keys})
    return cells


def evaluation(seed: int, *, step: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    names = ("weak_ce", "weak_agreement", "own_loss", "accuracy")
    return {
        "accuracy": float(rng.uniform(0.5, 1)),
        "step": step,
        "evaluated_steps": [1, 6, 15],
        "validation": {name: float(rng.uniform()) for name in names},
        "validation_rows": 500,
    }


def finish(made: Any, cells: list[dict[str, Any]]) -> None:
    for index, cell in enumerate(cells):
        made.finish("student_evaluate", cell, **evaluation(index))
        made.finish("ceiling_evaluate", cell, **evaluation(100 + index, step=15))
    made.finish_all(cells)


@pytest.mark.parametrize("by", RULES)
def test_the_chosen_cells_and_ceilings_are_the_best_of_their_group(
    local: Store, study: Any, by: str
) -> None:
    made = study(local)
    cells = cells_over_rates(made)
    finish(made, cells)
    rows = results_table(local, cells, {"over": ["learning_rate", "step"], "by": by}).to_pylist()
    plain = {row["key"]: row for row in results_table(local, cells).to_pylist()}
    column = f"validation_{COLUMN.get(by, by)}"
    for loss in ("forward_kl", "reverse_kl"):
        for seed in (0, 1):
            group = [row for row in rows if (row["loss"], row["seed"]) == (loss, seed)]
            assert len(group) == len(RATES)
            pick = min if by in LOWEST else max
            expected = pick(group, key=lambda row: row[column])["key"]
            assert [row["key"] for row in group if row["selected"]] == [expected]
            ceilings = {row["ceiling_key"] for row in group}
            assert len(ceilings) == 1
            ends = {RATES[0], RATES[-1]}
            for row in group:
                assert row["selected_by"] == by and row["selection_missing"] == 0
                assert row["selected_step"] == 6 and row["ceiling_step"] == 15
                weak, student, ceiling = (
                    row[f"{role}_accuracy"] for role in ("weak", "student", "ceiling")
                )
                assert row["pgr"] == (student - weak) / (ceiling - weak)
                at_edge = "learning_rate" if row["learning_rate"] in ends else ""
                assert row["selection_at_edge"] == (at_edge if row["selected"] else None)
                own = plain[row["key"]]
                assert own["selected"] is None and own["student_accuracy"] == student
            chosen = next(r for r in plain.values() if r["ceiling_key"] in ceilings)
            assert chosen["ceiling_accuracy"] == group[0]["ceiling_accuracy"]
            assert chosen["learning_rate"] == group[0]["ceiling_learning_rate"]


def test_a_choice_among_one_rate_is_no_choice(local: Store, study: Any) -> None:
    made = study(local)
    cells = cells_over_rates(made, RATES[:1])
    finish(made, cells)
    chosen = results_table(local, cells, SELECT).to_pylist()
    for row, plain in zip(chosen, results_table(local, cells).to_pylist(), strict=True):
        assert row["selected"] is True and row["selection_at_edge"] == ""
        added = [name for name in row if name.startswith("select") and name != "selected_step"]
        assert {n: v for n, v in row.items() if n not in added} == {
            n: v for n, v in plain.items() if n not in added
        }


def test_unfinished_cells_are_counted_and_never_chosen(local: Store, study: Any) -> None:
    made = study(local)
    cells = cells_over_rates(made)
    finish(made, [cell for index, cell in enumerate(cells) if index not in (1, 3, 4, 5)])
    for row in results_table(local, cells, SELECT).to_pylist():
        first = (row["loss"], row["seed"]) == (cells[0]["cell"]["loss"], 0)
        second = (row["loss"], row["seed"]) == (cells[3]["cell"]["loss"], 1)
        assert row["selection_missing"] == (1 if first else 3 if second else 0)
        assert not row["selected"] or row["status"] == "done"
        assert row["selected"] is False or not second


def test_results_with_a_choice_are_rebuilt_from_the_store_alone(store: Store, study: Any) -> None:
    made = study(store)
    cells = cells_over_rates(made)
    finish(made, cells[:-2])
    save_cells(store, "hh", cells, SELECT)
    table, _ = write_results(store, "hh", cells, SELECT)
    again, select = load_cells(store, "hh"), load_select(store, "hh")
    assert select == SELECT and again == cells
    assert results_table(store, again[::-1], select).equals(table)
    save_cells(store, "other", cells)
    assert load_select(store, "other") is None


def test_predictions_are_those_of_the_chosen_step(local: Store, study: Any) -> None:
    made = study(local)
    cell = made.cells[0]
    logits = np.arange(8, dtype=np.float32).reshape(2, 4)
    step = made.step("student", cell)
    step = replace(step, config={"training": {"evaluations": 3}})
    with local.draft(step, {}) as draft:
        pq.write_table(made.predicted(step.key), draft.folder / "test.parquet")
        np.save(draft.folder / "step_logits.npy", logits)
    last = {**evaluation(0), "step": 15}
    made.finish("student_evaluate", cell, **evaluation(0))
    made.finish_all([cell])

    def probs(cells: list[dict[str, Any]]) -> list[float]:
        write_predictions(local, "hh", cells)
        with local.open_file("predictions/hh.parquet") as file:
            table = pq.ParquetFile(file).read().to_pylist()
        return [row["prob"] for row in table if row["key"] == step.key]

    np.testing.assert_allclose(probs([cell]), 1 / (1 + np.exp(-logits[1].astype(float))))
    other = {**cell, "keys": {**cell["keys"], "student_evaluate": "ffff"}}
    made.finish("student_evaluate", other, **last)
    expected = made.predicted(step.key)["probs"].to_pylist()
    np.testing.assert_allclose(probs([other]), [p[1] for p in expected])


def test_a_control_trained_on_the_truth_is_chosen_by_it_and_a_baseline_is_not_chosen(
    local: Store, study: Any
) -> None:
    made = study(local)
    cells = [cell for cell in cells_over_rates(made) if cell["cell"]["loss"] == "reverse_kl"]
    finish(made, cells)
    for cell in cells:
        is_first = cell["cell"]["seed"] == 0
        cell["cell"]["control"] = "strong_on_weak_rows" if is_first else "tfidf"
    (baseline, *others) = (cell for cell in cells if cell["cell"]["seed"] == 1)
    unscored = {**baseline["keys"], "student": "aaaa", "student_evaluate": "bbbb"}
    for cell in (baseline, *others):
        cell["keys"] = {**cell["keys"], **unscored}
    made.finish_all([baseline])
    rows = results_table(local, cells, SELECT).to_pylist()
    truth = [row for row in rows if row["control"] == "strong_on_weak_rows"]
    highest = max(truth, key=lambda row: row["validation_accuracy"])
    assert [row["key"] for row in truth if row["selected"]] == [highest["key"]]
    assert {row["selected_by"] for row in truth} == {"ground_truth"}
    baselines = [row for row in rows if row["control"] == "tfidf"]
    assert [row["selected"] for row in baselines] == [True, False, False]
    assert baselines[0]["selection_at_edge"] == ""


def test_a_rate_without_effect_is_at_no_edge(tmp_path: Path) -> None:
    """An exact solver has one solution at all rates."""
    spec = tiny_spec(
        store=str(tmp_path / "store"),
        grid={"pair": [["small", "large"]], "trainable": ["last_layer"]},
        validation={"rows": 8},
        select={"over": ["learning_rate"], "by": "weak_ce"},
        training={"solver": "newton", "precision": "fp32", "max_length_tokens": 128},
    )
    spec["grid"] |= {"learning_rate": [1e-3, 1e-2]}  # type: ignore[operator]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(spec))
    assert main([str(tmp_path / "study.yaml"), "--local"]) == 0
    rows = pq.read_table(tmp_path / "store/results/tiny.parquet").to_pylist()
    assert len({row["key"] for row in rows}) == 1 < len(rows)
    assert [row["selection_at_edge"] for row in rows if row["selected"]] == [""]
