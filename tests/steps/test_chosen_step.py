"""A student whose step was chosen is, in all tables, the student of a run that stopped there."""

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.testing.specs import tiny_spec
from w2s_ray.store.columns import SCORES
from w2s_ray.study import main

pytestmark = pytest.mark.long

SAME = [
    *(f"student_{score.name}" for score in SCORES),
    *("gain", "misfit_forward", "misfit_reverse", "agreement", "blind_spots"),
    *("error_inheritance", "error_correction", "new_errors"),
]
EPOCHS = [1, 2, 3, 4]  # of one step each: a batch is all rows


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results and predictions of a study with steps chosen, and of one that stopped at each."""
    folder = tmp_path_factory.mktemp("chosen")
    training = {
        **{"precision": "fp32", "max_length_tokens": 128, "batch_size": 64, "schedule": "constant"},
        "weak": {"learning_rate": 0.05, "epochs": 5},
    }
    changes: dict[str, Any] = {
        "store": str(folder / "store"),
        "validation": {"rows": 12, "labels": "ground_truth"},
        "grid__loss": ["reverse_kl"],
        "grid__noise_ratio": [0.25],
        "grid__trainable": ["last_layer", "lora"],
        "grid__seed": [0, 1],
        "grid__learning_rate": [0.3],
    }
    whole = tiny_spec(
        study="chosen",
        training={**training, "epochs": len(EPOCHS), "evaluations": 20},
        select={"over": ["step"], "by": "ground_truth"},
        controls=["shuffled_labels", "strong_on_weak_rows", "length"],
        **changes,
    )
    stopped = tiny_spec(study="stopped", grid__epochs=EPOCHS, training=training, **changes)
    found: dict[str, Any] = {}
    for spec in (whole, stopped):
        path = folder / f"{spec['study']}.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        assert main([str(path), "--local"]) == 0
        for table in ("results", "predictions"):
            file = folder / f"store/{table}/{spec['study']}.parquet"
            found[f"{spec['study']} {table}"] = pq.read_table(file).to_pylist()
    return found


def probs(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    return {row["row_id"]: row["prob"] for row in rows if row["key"] == key}


def test_a_chosen_step_is_the_end_of_a_run_that_stopped_there(tables: dict[str, Any]) -> None:
    chosen = [row for row in tables["chosen results"] if not row["control"]]
    stopped = {
        (row["loss"], row["trainable"], row["seed"], row["epochs"]): row
        for row in tables["stopped results"]
    }
    steps = [row["selected_step"] for row in chosen]
    assert len(chosen) == 4 and any(step < len(EPOCHS) for step in steps), "nothing is tested"
    for row in chosen:
        other = stopped[row["loss"], row["trainable"], row["seed"], row["selected_step"]]
        assert {name: row[name] for name in SAME} == pytest.approx(
            {name: other[name] for name in SAME}, abs=1e-5
        )
        ours = probs(tables["chosen predictions"], row["key"])
        theirs = probs(tables["stopped predictions"], other["key"])
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose([*ours.values()], [theirs[name] for name in ours], atol=1e-5)


def test_the_best_of_the_evaluated_steps_is_chosen_and_an_edge_is_said(
    tables: dict[str, Any],
) -> None:
    for row in tables["chosen results"]:
        if row["control"]:
            continue
        by_step = {
            other["epochs"]: other["validation_accuracy"]
            for other in tables["stopped results"]
            if all(other[name] == row[name] for name in ("loss", "trainable", "seed"))
        }
        best = max(by_step.values())
        assert row["validation_accuracy"] == pytest.approx(best)
        assert row["selected_step"] == min(s for s, score in by_step.items() if score == best)
        at_edge = "step" if row["selected_step"] in (1, len(EPOCHS)) else ""
        assert row["selection_at_edge"] == at_edge


def test_no_truth_chooses_among_directions_that_know_nothing(tables: dict[str, Any]) -> None:
    rules = {row["control"]: row["selected_by"] for row in tables["chosen results"]}
    assert rules == {
        "": "ground_truth",
        "length": "ground_truth",
        "shuffled_labels": "weak_ce",
        "strong_on_weak_rows": "ground_truth",
    }


def test_nothing_learns_from_the_validation_rows(tables: dict[str, Any]) -> None:
    """Of 40 rows 12 are held out; the ceiling's rows are of another split."""
    rows = tables["chosen results"] + tables["stopped results"]
    assert {row["trained_rows"] for row in rows if row["control"] != "strong_on_weak_rows"} == {28}
