"""Every number of a page is recomputed by the query beside it; the command says what is wrong."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_ray.report.__main__ import main
from w2s_ray.report.joined import joined
from w2s_ray.report.page import Figure, Page, Table, Text, Warning
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import predictions_file, results_file
from w2s_ray.store.predictions import write_predictions
from w2s_ray.store.results import load_cells, save_cells, write_results


@pytest.fixture(scope="module")
def page(store: Store) -> Page:
    return study_page(store, "tiny", Choices())


def blocks(page: Page) -> dict[str, Table | Figure]:
    return {
        block.name: block
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Table | Figure)
    }


def answered(query: str) -> list[dict[str, Any]]:
    found = duckdb.sql(query)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def column(table: Table, title: str) -> list[Any]:
    (index,) = (i for i, of in enumerate(table.columns) if of.title == title)
    return [row[index] for row in table.rows]


def matched(
    table: Table, rows: Sequence[dict[str, Any]], loss: str = "loss"
) -> list[dict[str, Any]]:
    """For each row of a table the one of a query with its loss and noise."""
    noise = [float(cell.text or 0) for cell in column(table, "noise ratio")]
    names = [cell.text for cell in column(table, loss)]
    return [
        next(row for row in rows if (row["loss"], row["noise_ratio"]) == key)
        for key in zip(names, noise, strict=True)
    ]


def test_the_accuracies_are_those_of_their_query(page: Page) -> None:
    table = blocks(page)["accuracy"]
    assert isinstance(table, Table) and len(table.rows) == 4
    rows = matched(table, [row for row in answered(table.query) if not row["control"]])
    for role in ("weak", "student", "ceiling"):
        shown = [cell.value for cell in column(table, f"{role}, %")]
        assert shown == pytest.approx([row[f"{role}_accuracy"] for row in rows])
    assert [cell.text for cell in column(table, "seeds")] == [str(row["cells"]) for row in rows]


def test_the_differences_are_those_of_their_query(page: Page) -> None:
    table = blocks(page)["differences"]
    assert isinstance(table, Table) and len(table.rows) == 2
    rows = matched(table, answered(table.query))
    shown = [cell.value for cell in column(table, "difference, points")]
    assert shown == pytest.approx([row["difference"] for row in rows])
    assert all(cell.low <= cell.value <= cell.high for cell in column(table, "difference, points"))
    verdicts = {cell.text for cell in column(table, "verdict")}
    assert verdicts <= {"better", "worse", "equivalent", "undecided"}


def test_the_figures_are_those_of_their_queries(page: Page) -> None:
    found = blocks(page)
    rates = found["accuracy-by-rate"]
    assert isinstance(rates, Figure) and "noise ratio 0" in rates.caption
    by_rate = {
        (row["loss"], row["learning_rate"]): row["student_accuracy"]
        for row in answered(rates.query)
        if row["noise_ratio"] == 0.0
    }
    for line in rates.lines:
        assert list(line.y) == pytest.approx([by_rate[line.name, x] for x in line.x])
        assert len(line.dots) == 3 * len(line.x)
    misfits = found["gain-by-misfit"]
    assert isinstance(misfits, Figure)
    dots = sorted((x, y) for of in misfits.lines for x, y in zip(of.x, of.y, strict=True))
    rows = answered(misfits.query)
    assert dots == sorted((row["misfit_forward"], row["gain"]) for row in rows)


def test_controls_stand_apart_and_the_rule_is_said(page: Page) -> None:
    table = blocks(page)["controls"]
    assert isinstance(table, Table)
    assert [cell.text for cell in column(table, "control")] == ["length"]
    texts = [b.text for s in page.sections for b in s.blocks if isinstance(b, Text)]
    assert any("chosen by weak_ce on 10 held-out rows" in text for text in texts)


def test_what_is_missing_is_marked_at_the_top_and_named(store: Store, tmp_path: Path) -> None:
    """A study with a cell that was never run, in a store of its own."""
    cells = load_cells(store, "tiny")
    cells[-1]["keys"]["student_evaluate"] = "never"
    save_cells(store, "half", cells)
    write_results(store, "half", cells)
    write_predictions(store, "half", cells)
    page = study_page(store, "half", Choices())
    warnings = [b.text for b in page.sections[0].blocks if isinstance(b, Warning)]
    assert len(warnings) == 1 and f"1 of {len(cells)} cells are not done" in warnings[0]
    table = blocks(page)["unfinished"]
    assert isinstance(table, Table) and len(table.rows) == 1
    assert [cell.text for cell in column(table, "reason")] == ["not run yet"]
    assert [row["key"] for row in answered(table.query)] == [column(table, "key")[0].text]


def test_the_command_writes_the_report(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([store.location(""), "tiny", "--out", str(tmp_path)]) == 0
    assert str(tmp_path / "tiny") in capsys.readouterr().out
    assert (tmp_path / "tiny" / "index.html").read_text().startswith("<!DOCTYPE html>")
    text = (tmp_path / "tiny" / "report.md").read_text()
    assert text.startswith("# Study tiny\n") and "## Paired differences" in text
    assert (
        (tmp_path / "tiny" / "tables" / "accuracy.csv").read_text().startswith("loss,noise ratio,")
    )


@pytest.mark.long
def test_several_studies_share_a_page_and_keep_their_own_numbers(
    store: Store, page: Page, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store.location(""), copy)
    other = ["--also", str(copy), "tiny"]
    assert main([store.location(""), "tiny", *other, "--out", str(tmp_path)]) == 0
    written = (tmp_path / "joined" / "report.md").read_text().replace("\\", "")
    for of in (store.location("").rstrip("/"), str(copy)):
        assert f"## Study tiny of {of}: Answer" in written
    assert f"--also {copy} tiny" in written
    both = joined([replace(page, title=f"Study {name}") for name in "ab"], "the command")
    names = [block.name for of in both.sections for block in of.blocks if isinstance(block, Table)]
    assert (
        len(set(names))
        == len(names)
        == 2 * len([block for block in blocks(page).values() if isinstance(block, Table)])
    )
    assert [of.heading for of in both.sections[:2]] == ["Study a: Answer", "Study b: Answer"]
    assert len(list((tmp_path / "joined" / "tables").glob("*.csv"))) == len(names)


def test_one_study_given_twice_is_refused(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([store.location(""), "tiny", "tiny", "--out", str(tmp_path)]) == 2
    assert "given 'tiny' of" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["other"], "study: given 'other', expected one that"),
        (["tiny", "--baseline", "reverse_k"], "--baseline: given 'reverse_k', expected one of"),
        (["tiny", "--margin", "0"], "--margin: given 0, expected points from 0 to 100"),
    ],
)
def test_a_wrong_argument_is_one_line(
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main([store.location(""), *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_results_that_were_edited_are_said_and_not_believed(store: Store) -> None:
    path = Path(store.location(results_file("tiny")))
    before, table = path.read_bytes(), pq.read_table(path)
    index = table.column_names.index("student_accuracy")
    field, ones = table.schema.field(index), pa.array([1.0] * table.num_rows)
    pq.write_table(table.set_column(index, field, ones), path)
    try:
        page = study_page(store, "tiny", Choices())
    finally:
        path.write_bytes(before)
    warnings = [b.text for b in page.sections[0].blocks if isinstance(b, Warning)]
    assert len(warnings) == 1 and "is not what the records of its store say" in warnings[0]
    accuracy = blocks(page)["accuracy"]
    assert isinstance(accuracy, Table)
    assert all(cell.value < 1.0 for cell in column(accuracy, "student, %"))


def test_predictions_that_were_edited_are_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(store.location(predictions_file("tiny")))
    before, file = path.read_bytes(), pq.ParquetFile(path)
    tables = [file.read_row_group(index) for index in range(file.num_row_groups)]
    index = file.schema_arrow.names.index("prob")
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        for table in tables:
            other = pa.array([1.0 - value for value in table["prob"].to_pylist()])
            writer.write_table(table.set_column(index, table.schema.field(index), other))
    try:
        assert main([store.location(""), "tiny", "--out", str(tmp_path)]) == 2
    finally:
        path.write_bytes(before)
    error = capsys.readouterr().err
    assert "the predictions were edited or damaged: run the study again" in error


@pytest.mark.parametrize("damage", [b"", b"PAR1 not a table"])
def test_a_damaged_file_of_results_is_said(store: Store, damage: bytes) -> None:
    path = Path(store.location(results_file("tiny")))
    before = path.read_bytes()
    path.write_bytes(damage)
    try:
        page = study_page(store, "tiny", Choices())
    finally:
        path.write_bytes(before)
    (warning,) = (b.text for b in page.sections[0].blocks if isinstance(b, Warning))
    assert "edited, damaged or written by another version" in warning


def test_results_of_another_schema_version_are_refused(store: Store, tmp_path: Path) -> None:
    path = Path(store.location(results_file("tiny")))
    table = pq.read_table(path)
    index = table.column_names.index("schema_version")
    field = table.schema.field(index)
    versions = pa.array([99] * table.num_rows, field.type)
    changed = Path(store.location(results_file("old")))
    pq.write_table(table.set_column(index, field, versions), changed)
    assert main([store.location(""), "old", "--out", str(tmp_path)]) == 2
    changed.unlink()
