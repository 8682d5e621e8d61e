"""The page of a study of generated text says what its tables hold."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.testing.text_studies import text_spec
from w2s_ray.report.page import Figure, Page, Table, Text, Warning
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.report.text_arms import model_pairs
from w2s_ray.report.text_distance import measures
from w2s_ray.report.write import write_report
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

pytestmark = pytest.mark.long

METHODS = ["untrained", "weak_sft", "weak_sft_published", "cong_s", "proxy"]
GRID = {"pair": [["weak", "strong"]], "method": METHODS, "seed": [0, 1]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    assert main([str(text_spec(folder, grid={**GRID, "alpha": [0.2, 0.6]})), "--local"]) == 0
    return folder / "store"


@pytest.fixture(scope="module")
def rates(store: Path) -> Page:
    """A study of several learning rates in the same store: most of its steps are there."""
    grid = {**GRID, "method": ["weak_sft", "cong_s"], "alpha": [0.6]}
    grid |= {"learning_rate_factor": [1.0, 30.0]}
    assert main([str(text_spec(store.parent, study="tiny-rates", grid=grid)), "--local"]) == 0
    return study_page(Store.open(str(store)), "tiny-rates", Choices())


@pytest.fixture(scope="module")
def page(store: Path) -> Page:
    return study_page(Store.open(str(store)), "tiny-text", Choices())


def table(page: Page, name: str) -> Table:
    blocks = [block for section in page.sections for block in section.blocks]
    return next(of for of in blocks if isinstance(of, Table) and of.name.startswith(name))


def figure(page: Page, name: str) -> Figure:
    blocks = [block for section in page.sections for block in section.blocks]
    return next(of for of in blocks if isinstance(of, Figure) and of.name.startswith(name))


def labels(rows: list[tuple[object, ...]], method: int) -> list[str]:
    return [
        str(row[method]) if row[method + 1] is None else f"{row[method]} α={row[method + 1]:g}"
        for row in rows
    ]


def test_the_queries_recompute_rates_and_differences(page: Page) -> None:
    rates = table(page, "rates")
    rows = duckdb.sql(rates.query).fetchall()
    found = dict(zip(labels(rows, 3), [row[6] for row in rows], strict=True))
    shown = {str(row[0].text): row[1].value for row in rates.rows}
    assert shown == pytest.approx(found)
    differences = table(page, "differences")
    rows = duckdb.sql(differences.query).fetchall()
    found = dict(zip(labels(rows, 2), [row[4] for row in rows], strict=True))
    for row in differences.rows:
        assert row[1].value == pytest.approx(found[str(row[0].text)])
    words = table(page, "text")
    rows = duckdb.sql(words.query).fetchall()
    found = dict(zip(labels(rows, 2), [row[5] for row in rows], strict=True))
    assert {str(row[0].text): row[1].value for row in words.rows} == pytest.approx(found, abs=0.2)


def test_the_frontier_has_the_numbers_of_the_tables(page: Page) -> None:
    frontier, texts, rates = (table(page, name) for name in ("frontier", "text", "rates"))
    distances = {row[0].text: (row[6], row[7]) for row in texts.rows}
    rate_of = {row[0].text: row[1] for row in rates.rows}
    assert frontier.rows[0][0].text == "untrained"
    for label, distance, per_token, rate, _ in frontier.rows:
        assert rate == rate_of[label.text]
        if label.text == "untrained":
            assert (distance.value, per_token.value) == (0.0, 0.0)
        else:
            assert (distance, per_token) == distances[label.text]
    drawn = {line.name: (line.x[0], line.y[0]) for line in figure(page, "frontier").lines}
    assert drawn == {row[0].text: (row[1].value, row[3].value) for row in frontier.rows}
    on_it = [row for row in frontier.rows if row[4].text == "yes"]
    values = [(row[1].value, row[3].value) for row in on_it]
    assert values == sorted(values)  # a higher rate only for more distance
    best = max(row[3].value or 0.0 for row in frontier.rows)
    assert values[-1][1] == best


def test_the_best_alpha_is_told_with_what_the_other_prompts_say(page: Page) -> None:
    texts = [b.text for section in page.sections for b in section.blocks if isinstance(b, Text)]
    (said,) = [text for text in texts if "has the highest rate" in text]
    rates = {row[0].text: row[1].value or 0.0 for row in table(page, "rates").rows}
    best = max((0.2, 0.6), key=lambda alpha: rates[f"cong_s α={alpha:g}"])
    assert f"α={best:g} has the highest rate, chosen on the test prompts" in said
    assert "Chosen on one half of the prompts and tested on the other" in said


def test_the_published_baseline_stands_beside_the_fair_one(page: Page) -> None:
    published, differences = table(page, "published"), table(page, "differences")
    fair = {row[0].text: row[1] for row in differences.rows}
    gap = next(row[1].value for row in published.rows if row[0].text == "weak_sft")
    for label, from_published, from_fair in published.rows:
        if label.text == "weak_sft":
            continue
        assert from_fair == fair[label.text]
        assert from_published.value == pytest.approx((from_fair.value or 0.0) + (gap or 0.0))


def test_a_log_ratio_is_called_kl_only_where_it_is_one(store: Path, page: Page) -> None:
    assert any(c.title == "log-ratio, nats" for c in table(page, "text").columns)  # top_p is 0.95
    pairs = model_pairs(
        pq.read_table(store / "results/tiny-text.parquet").to_pylist(),
        pq.read_table(store / "samples/tiny-text.parquet").to_pylist(),
    )
    (plainly,) = [of for of in measures(pairs, ("r", "s"), is_kl=True) if of.name[:4] == "text"]
    assert isinstance(plainly, Table)
    assert any(column.title == "KL, nats" for column in plainly.columns)


def test_every_verdict_of_the_table_is_in_the_answer(page: Page) -> None:
    (answer,) = [block for block in page.sections[0].blocks if isinstance(block, Text)]
    for row in table(page, "differences").rows:
        assert str(row[0].text) in answer.text and str(row[-1].text) in answer.text


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


def test_of_several_learning_rates_the_compared_one_is_named_with_who_chose_it(
    page: Page, rates: Page
) -> None:
    (one,), (several,) = (
        [block.text for block in of.sections[0].blocks if isinstance(block, Text)]
        for of in (page, rates)
    )
    assert "All were trained at one learning rate" in one
    assert "chosen by the checks on one half of the test prompts" in several
    assert "weak_sft ×" in several and "(at the edge of the grid)" in several
    compared = {row[0].text for row in table(rates, "differences").rows}
    assert compared == {"weak", "cong_s α=0.6 lr chosen"}
    assert not table(rates, "differences").query  # which SQL does not recompute


def test_at_the_chosen_rate_a_method_is_no_better_than_at_the_best_one(rates: Page) -> None:
    rate_of = {str(row[0].text): row[1].value or 0.0 for row in table(rates, "rates").rows}
    for method in ("weak_sft", "cong_s α=0.6", "ceiling"):
        each = [rate_of[f"{method} lr×{factor}"] for factor in (1, 30)]
        assert rate_of[f"{method} lr chosen"] <= max(each) + 0.25  # halves may choose two rates
        assert rate_of[f"{method} lr chosen"] >= 0.0
