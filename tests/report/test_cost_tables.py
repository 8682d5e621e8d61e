"""Cost by kind of step: what records say, what they do not, and the query that recomputes it."""

from typing import Any

import duckdb
import pytest

from w2s_ray.report.cost_tables import StepCost, step_cost_table
from w2s_ray.report.page import Cell, Table, Text
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.store.artifacts import Store
from w2s_ray.store.results import load_cells


def cost(kind: str, seconds: float, **facts: Any) -> StepCost:
    plain = {"tokens": None, "flops": None, "fused": 1, "device": None, "host": "a"}
    return StepCost(kind, seconds, **(plain | facts))


def rows_of(table: Text | Table) -> dict[str, tuple[Cell, ...]]:
    assert isinstance(table, Table)
    return {str(row[0].text): row[1:] for row in table.rows}


def test_every_kind_has_its_sums_and_the_most_expensive_is_first() -> None:
    costs = [
        cost("label", 1.0),
        cost("weak", 4.0, tokens=10, flops=1e12, device="cuda"),
        cost("weak", 9.0, tokens=20, flops=3e12, device="cuda"),
        cost("weak", 5.0, tokens=30, flops=2e12, device="cuda", host="b", fused=2),
    ]
    rows = rows_of(step_cost_table(costs, 4, ""))
    assert list(rows) == ["weak", "label", "all"]
    assert [cell.value for cell in rows["weak"][:6]] == [
        3,
        18.0,
        5.0,
        pytest.approx(1 / 3),
        60,
        6e12,
    ]
    assert [cell.text for cell in rows["weak"][5:]] == ["6e+12", "cuda", "a, b"]
    assert [cell.value for cell in rows["label"][:6]] == [1, 1.0, 1.0, 0.0, None, None]
    assert [cell.text for cell in rows["label"][6:]] == ["not recorded", "a"]
    assert rows["all"][0].value == 4 and rows["all"][1].value == 19.0
    assert rows["all"][6].text == "cuda (3)"


def test_numbers_that_some_records_lack_and_missing_records_are_said() -> None:
    costs = [cost("student", 1.0, tokens=5), cost("student", 1.0)]
    table = step_cost_table(costs, 1003, "")
    assert isinstance(table, Table)
    notes = " ".join(table.notes)
    assert "student: tokens are of the 1 of 2 steps that record them." in notes
    assert "1,001 of 1,003 steps have no record" in notes


def test_many_hosts_are_counted() -> None:
    rows = rows_of(step_cost_table([cost("weak", 1.0, host=name) for name in "edcba"], 5, ""))
    assert rows["weak"][-1].text == "a, b, c and 2 more"


def test_without_records_the_page_says_so() -> None:
    said = step_cost_table([], 12, "")
    assert isinstance(said, Text)
    assert "records of none of the study's 12 steps" in said.text


def test_the_table_is_that_of_its_query_and_counts_every_step_once(store: Store) -> None:
    page = study_page(store, "tiny", Choices())
    (section,) = (of for of in page.sections if of.anchor == "cost")
    table = section.blocks[0]
    assert isinstance(table, Table)
    keys = {key for cell in load_cells(store, "tiny") for key in cell["keys"].values()}
    found = duckdb.sql(table.query)
    recomputed = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.fetchall()}
    rows = rows_of(table)
    assert list(rows) == list(recomputed)
    assert rows["all"][0].value == len(keys)
    columns = ("steps", "seconds", "median_seconds", "fused", "tokens", "operations")
    for kind, cells in rows.items():
        expected = [recomputed[kind][name] for name in columns]
        assert [cell.value for cell in cells[:6]] == pytest.approx(expected)
        assert cells[7].text in recomputed[kind]["hosts"]
