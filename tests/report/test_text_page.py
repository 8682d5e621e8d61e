"""The page of a study of generated text says what its tables hold."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.testing.text_studies import text_spec
from w2s_ray.report.page import Page, Table, Text, Warning
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.report.write import write_report
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

pytestmark = pytest.mark.long

GRID = {"pair": [["weak", "strong"]], "method": ["weak_sft", "cong_s", "proxy"], "seed": [0, 1]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    assert main([str(text_spec(folder, grid={**GRID, "alpha": [0.2, 0.6]})), "--local"]) == 0
    return folder / "store"


@pytest.fixture(scope="module")
def page(store: Path) -> Page:
    return study_page(Store.open(str(store)), "tiny-text", Choices())


def table(page: Page, name: str) -> Table:
    blocks = [block for section in page.sections for block in section.blocks]
    return next(of for of in blocks if isinstance(of, Table) and of.name.startswith(name))


def labels(rows: list[tuple[object, ...]], method: int) -> list[str]:
    return [
        str(row[method]) if row[method + 1] is None else f"{row[method]} α={row[method + 1]:g}"
        for row in rows
    ]


def test_the_queries_recompute_rates_and_differences(page: Page) -> None:
    rates = table(page, "rates")
    rows = duckdb.sql(rates.query).fetchall()
    found = dict(zip(labels(rows, 3), [row[5] for row in rows], strict=True))
    shown = {str(row[0].text): row[1].value for row in rates.rows}
    assert shown == pytest.approx(found)
    differences = table(page, "differences")
    rows = duckdb.sql(differences.query).fetchall()
    found = dict(zip(labels(rows, 2), [row[4] for row in rows], strict=True))
    for row in differences.rows:
        assert row[1].value == pytest.approx(found[str(row[0].text)])
    words = table(page, "text")
    rows = duckdb.sql(words.query).fetchall()
    found = dict(zip(labels(rows, 2), [row[4] for row in rows], strict=True))
    assert {str(row[0].text): row[1].value for row in words.rows} == pytest.approx(found, abs=0.2)


def test_every_verdict_of_the_table_is_in_the_answer(page: Page) -> None:
    (answer,) = [block for block in page.sections[0].blocks if isinstance(block, Text)]
    for row in table(page, "differences").rows:
        assert str(row[0].text) in answer.text and str(row[5].text) in answer.text


def test_a_changed_file_of_results_is_said(store: Path, page: Page, tmp_path: Path) -> None:
    file = store / "results" / "tiny-text.parquet"
    before, results = file.read_bytes(), pq.read_table(file)
    pq.write_table(results.slice(1), file)
    try:
        changed = study_page(Store.open(str(store)), "tiny-text", Choices())
    finally:
        file.write_bytes(before)
    assert any(isinstance(block, Warning) for block in changed.sections[0].blocks)
    assert table(changed, "rates") == table(page, "rates")


def test_what_a_model_writes_cannot_leave_its_cell(page: Page, tmp_path: Path) -> None:
    write_report(page, tmp_path)
    html = (tmp_path / "index.html").read_text()
    answers = [row[2].text or "" for of in (table(page, "samples"),) for row in of.rows]
    assert any("<" in text or "&" in text or not text.isprintable() for text in answers) or answers
    assert "\x00" not in html and html.count("<script") == html.count("</script")
