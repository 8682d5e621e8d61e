"""The results table shows what the store holds, no more and no less, and is reproducible."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import digest
from w2s_ray.store.columns import AXES, RESULTS, RESULTS_SCHEMA_VERSION, STATUSES
from w2s_ray.store.results import (
    load_cells,
    read_results,
    replaced_cells,
    results_table,
    save_cells,
    saved_studies,
    write_results,
)

# Other programs read these: docs/results.md. Names may be added to the table, never taken from it.
FROZEN = {
    "key",
    "study",
    "data",
    "weak",
    "strong",
    "loss",
    "confidence_weight",
    "noise_ratio",
    "trainable",
    "seed",
    "status",
    "error",
    "weak_accuracy",
    "student_accuracy",
    "ceiling_accuracy",
    "pgr",
    "gain",
    "misfit_forward",
    "misfit_reverse",
    "seconds",
    "tokens",
    "peak_memory_bytes",
    "schema_version",
}


def rows(store: Store, cells: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The table's rows by key."""
    return {row["key"]: row for row in results_table(store, cells).to_pylist()}


def file_bytes(store: Store, name: str) -> bytes:
    with store.open_file(name) as file:
        return bytes(file.read())


def test_the_frozen_columns_are_there() -> None:
    names = [column.name for column in RESULTS]
    assert set(names) >= FROZEN
    assert len(names) == len(set(names))
    assert all(column.description for column in RESULTS)


def test_the_table_is_rebuilt_byte_for_byte_from_the_store_alone(store: Store, study: Any) -> None:
    made = study(store)
    made.finish_all(made.cells[:2])
    save_cells(store, "hh", made.cells)
    table, where = write_results(store, "hh", made.cells)
    first = file_bytes(store, "results/hh.parquet")
    assert where == f"{store.uri}/results/hh.parquet"
    assert read_results(store, "hh").equals(table)
    assert saved_studies(store) == ["hh"]
    again = load_cells(store, "hh")
    assert again == made.cells
    write_results(store, "hh", again[::-1])
    assert file_bytes(store, "results/hh.parquet") == first


def test_one_row_a_cell_sorted_with_units_in_the_schema(local: Store, study: Any) -> None:
    made = study(local)
    table = results_table(local, made.cells)
    assert table["key"].to_pylist() == [
        cell["keys"]["student"]
        for cell in sorted(made.cells, key=lambda c: (c["cell"]["loss"], c["cell"]["seed"]))
    ]
    assert table["loss"].to_pylist() == ["forward_kl"] * 2 + ["reverse_kl"] * 2
    assert set(table["schema_version"].to_pylist()) == {RESULTS_SCHEMA_VERSION}
    assert table.schema.field("gain").metadata[b"unit"] == b"nat"
    for axis in AXES:
        if axis.name != "loss_parameters":
            expected = {cell["keys"]["student"]: cell["cell"][axis.name] for cell in made.cells}
            actual = dict(zip(*(table[n].to_pylist() for n in ("key", axis.name)), strict=True))
            assert actual == expected


def test_an_empty_study_is_a_table_without_rows(local: Store) -> None:
    table, _ = write_results(local, "none", [])
    assert table.num_rows == 0
    assert read_results(local, "none").schema.equals(table.schema)


def test_a_missing_score_is_null_and_never_zero(local: Store, study: Any) -> None:
    made = study(local)
    scores = [c.name for c in RESULTS if c.nullable and c.type in (pa.float64(), pa.int64())]
    scores.remove("label_clip")
    for row in rows(local, made.cells).values():
        assert row["status"] == "pending"
        assert row["error"] is None
        assert {row[name] for name in scores} == {None}
    cell = made.cells[0]
    made.finish("weak_evaluate", cell, accuracy=0.25)
    row = rows(local, made.cells)[cell["keys"]["student"]]
    assert row["weak_accuracy"] == 0.25
    assert {row[name] for name in scores if not name.startswith("weak_")} == {None}


def test_scores_of_a_finished_cell(local: Store, study: Any) -> None:
    made = study(local)
    cell = made.cells[0]
    made.finish("weak_evaluate", cell, accuracy=0.6, cross_entropy=0.75)
    made.finish("ceiling_evaluate", cell, accuracy=0.8)
    made.finish(
        "student_evaluate",
        cell,
        accuracy=0.7,
        cross_entropy=0.5,
        agreement_with_weak=0.9,
        misfit_forward=0.01,
        misfit_reverse=0.02,
    )
    made.finish("label", cell, accuracy=0.65, mean_confidence=0.07)
    made.finish("student", cell, peak_memory_bytes=10**10, seconds=2.5)
    row = rows(local, made.cells)[cell["keys"]["student"]]
    assert row["status"] == "done"
    assert row["error"] is None
    assert row["pgr"] == pytest.approx(0.5)
    assert row["gain"] == 0.25
    assert row["ceiling_cross_entropy"] == 0.5
    assert row["agreement"] == 0.9
    assert (row["misfit_forward"], row["misfit_reverse"]) == (0.01, 0.02)
    assert (row["weak_label_accuracy"], row["weak_confidence"]) == (0.65, 0.07)
    assert (row["seconds"], row["tokens"], row["peak_memory_bytes"]) == (2.5, 100, 10**10)
    assert row["test_rows"] == 4
    assert row["weak_key"] == cell["keys"]["weak"]
    code = local.record(cell["keys"]["student"])["provenance"]["code"]
    assert (row["code_commit"], row["code_digest"]) == (code["commit"], code["digest"])


@pytest.mark.parametrize(
    ("weak", "student", "ceiling", "pgr"),
    [
        (0.6, 0.5, 0.8, -0.5),
        (0.6, 0.9, 0.8, 1.5),
        (0.8, 0.7, 0.6, 0.5),
        (0.7, 0.8, 0.7, None),
        (0.7, None, 0.8, None),
        (None, 0.7, 0.8, None),
        (0.7, 0.7, None, None),
        (0.0, 0.0, 0.5, 0.0),
    ],
)
def test_pgr_is_not_clipped_and_unknown_without_a_gap(
    local: Store,
    study: Any,
    weak: float | None,
    student: float | None,
    ceiling: float | None,
    pgr: float | None,
) -> None:
    made = study(local)
    cell = made.cells[0]
    for role, accuracy in (("weak", weak), ("student", student), ("ceiling", ceiling)):
        if accuracy is not None:
            made.finish(f"{role}_evaluate", cell, accuracy=accuracy)
    row = rows(local, made.cells)[cell["keys"]["student"]]
    assert row["pgr"] == (None if pgr is None else pytest.approx(pgr))


@pytest.mark.parametrize(
    ("finished", "failed", "status", "error"),
    [
        ((), (), "pending", None),
        (("student",), (), "pending", None),
        (("student", "student_evaluate"), (), "done", None),
        (("student", "student_evaluate"), ("ceiling",), "done", "ceiling KEY: Error: boom"),
        ((), ("student",), "failed", "Error: boom"),
        (("student",), ("student_evaluate",), "failed", "student_evaluate KEY: Error: boom"),
        ((), ("weak",), "blocked", "weak KEY: Error: boom"),
        ((), ("prepare",), "blocked", "prepare KEY: Error: boom"),
        ((), ("weak_evaluate",), "pending", None),  # no student needs it
        ((), ("ceiling",), "pending", None),
        ((), ("label", "student"), "failed", "Error: boom"),
        ((), ("member_2",), "blocked", "member_2 KEY: Error: boom"),
        ((), ("link_1",), "blocked", "link_1 KEY: Error: boom"),
    ],
)
def test_the_state_of_a_cell_follows_from_its_steps(
    local: Store,
    study: Any,
    finished: tuple[str, ...],
    failed: tuple[str, ...],
    status: str,
    error: str | None,
) -> None:
    made = study(local, seeds=[0])
    cell, other = made.cells
    for role in ("member_2", "link_1"):  # as of an ensemble, and of a chain
        cell["keys"][role] = digest([role, "own"])
    for role in finished:
        made.finish(role, cell)
    for role in failed:
        local.record_failure(made.step(role, cell), "Error: boom")
    by_key = rows(local, made.cells)
    row = by_key[cell["keys"]["student"]]
    assert row["status"] == status
    assert row["error"] == (error and error.replace("KEY", cell["keys"][failed[0]]))
    assert status in STATUSES
    shared = {"weak", "prepare", "label"} & set(failed)
    assert by_key[other["keys"]["student"]]["status"] == ("blocked" if shared else "pending")


def test_parameters_of_a_loss_are_one_json_text(local: Store, study: Any) -> None:
    made = study(local, seeds=[0])
    made.cells[0]["cell"]["loss_parameters"] = {"b": 0.1, "a": 1.0}
    made.cells[1]["cell"]["loss_parameters"] = [["b", 0.1], ["a", 1.0]]
    assert {row["loss_parameters"] for row in rows(local, made.cells).values()} == {
        '{"a":1.0,"b":0.1}'
    }


def test_loading_a_study_that_was_never_saved_fails(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        load_cells(store, "none")
    with pytest.raises(FileNotFoundError):
        read_results(store, "none")
    assert saved_studies(store) == []


def test_a_table_that_cannot_be_written_leaves_the_old_one(local: Store, study: Any) -> None:
    made = study(local)
    write_results(local, "hh", made.cells)
    before = file_bytes(local, "results/hh.parquet")
    broken = [{**made.cells[0], "cell": {**made.cells[0]["cell"], "epochs": "one"}}]
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_results(local, "hh", broken)
    with pytest.raises(ValueError, match="stop"), local.writing("results/hh.parquet") as path:
        raise ValueError(f"stop before {path} is written")
    assert file_bytes(local, "results/hh.parquet") == before
    names = {path.name for path in Path(local.uri, "results").iterdir()}
    assert names == {"hh.parquet", ".hh.parquet.sha256"}


def test_cells_are_counted_if_all_of_them_are_replaced(store: Store, study: Any) -> None:
    cells = study(store, seeds=[0, 1, 2]).cells
    assert replaced_cells(store, "hh", cells) == 0  # there is none yet
    for grid in (cells[:2], cells, cells[1:], cells[1:3], cells[2:]):  # grows, shrinks, moves
        assert replaced_cells(store, "hh", grid) == 0
        save_cells(store, "hh", grid)
        assert load_cells(store, "hh") == grid
    assert replaced_cells(store, "hh", cells[:2]) == len(cells) - 2
    assert replaced_cells(store, "another-name", cells[:2]) == 0
    store.write_json("studies/hh.json", {"damaged": True})
    assert replaced_cells(store, "hh", cells[:2]) == 0
