"""The page in headless Chromium: as a reader sees it, in both themes, narrow, wide and printed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.demo_page import demo_page
from tests.testing.browser import Browser, chromium
from tests.testing.shares import share
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.report.write import write_report
from w2s_ray.store.artifacts import Store

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed"),
]
ROWS = 10_000
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Elements that stick out of the window and are in no box that scrolls.
STICKING_OUT = """
[...document.querySelectorAll("body *")].filter((e) => !e.closest(".box, pre, .skip")
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((e) => e.outerHTML.slice(0, 80))
"""
# Texts whose contrast with what is behind them is below WCAG's AA, with the ratio.
LOW_CONTRAST = """
(() => {
  const parse = (c) => {
    const v = (c.match(/[\\d.]+/g) || []).map(Number);
    return v.length < 3 ? null : [v[0], v[1], v[2], v.length > 3 ? v[3] : 1];
  };
  const luminance = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c && c[3] === 1) return c;
    }
    return [255, 255, 255, 1];
  };
  const low = [];
  let count = 0;
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest("script, style") || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const isDrawn = e instanceof SVGElement;
    const front = parse(isDrawn ? style.fill : style.color);
    // Numbers in the cells of a heat map are on the cell's colour, see test_figures.
    if (isDrawn && ["0,0,0", "254,254,254"].includes(front.slice(0, 3).join())) continue;
    const [a, b] = [luminance(front), luminance(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    count += 1;
    if (ratio < 4.5) low.push(ratio.toFixed(2) + " " + e.outerHTML.slice(0, 120));
  }
  return { count, low };
})()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(demo_page(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def long_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(demo_page(ROWS), tmp_path_factory.mktemp("long"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.end()


@pytest.mark.parametrize("width", share([400, 700, 1000, 1400], 3))
def test_nothing_overflows_is_asked_for_or_goes_wrong(
    browser: Browser, report: Path, width: int
) -> None:
    tab = browser.open(report, width)
    assert tab.value(OVERFLOW) <= 0
    assert tab.value(STICKING_OUT) == []
    assert tab.complaints() == []
    # The page itself and its icon, which is in it; figures are a part of it.
    assert [url for url in tab.requests() if not url.startswith("data:")] == [report.as_uri()]


@pytest.mark.parametrize("width", share([400, 1400], 2))
def test_the_page_of_a_study_is_in_order_too(
    browser: Browser, store: Store, tmp_path: Path, width: int
) -> None:
    page = write_report(study_page(store, "tiny", Choices()), tmp_path)
    tab = browser.open(page, width, is_dark=width == 400)
    assert (tab.value(OVERFLOW), tab.value(STICKING_OUT), tab.complaints()) == (0, [], [])
    assert tab.value(LOW_CONTRAST)["low"] == []
    assert tab.requests() == [page.as_uri()]


@pytest.mark.parametrize("is_dark", [False, True])
def test_every_text_has_the_contrast_of_level_aa(
    browser: Browser, report: Path, is_dark: bool
) -> None:
    tab = browser.open(report, 1200, is_dark=is_dark)
    background = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 24, 27)") == is_dark
    found = tab.value(LOW_CONTRAST)
    assert found["count"] > 500
    assert found["low"] == []


def test_the_theme_is_switched_and_kept(browser: Browser, report: Path) -> None:
    tab = browser.open(report, 1200)
    themes = []
    for _ in range(3):
        tab.value("document.getElementById('theme').click()")
        themes.append(tab.value("getComputedStyle(document.body).backgroundColor"))
    assert themes == ["rgb(255, 255, 255)", "rgb(22, 24, 27)", "rgb(255, 255, 255)"]
    tab.value("document.getElementById('theme').click()")
    tab.value("document.getElementById('theme').click()")
    assert browser.open(report, 1200).value("document.documentElement.dataset.theme") == "dark"
    tab.value("document.getElementById('theme').click()")


def test_a_table_is_sorted_with_the_keyboard(browser: Browser, report: Path) -> None:
    tab = browser.open(report, 1200)
    first = "document.querySelector('#table-main tbody td:nth-child(COLUMN)').textContent"
    head = "document.querySelector('#table-main th:nth-child(COLUMN)').getAttribute('aria-sort')"
    tab.value("document.querySelector('#table-main th button').focus()")
    tab.press("Tab", 9)  # to the second column
    tab.press("Enter", 13, "\r")
    assert tab.value(head.replace("COLUMN", "2")) == "ascending"
    assert tab.value(first.replace("COLUMN", "2")).startswith("71.0")
    tab.press("Enter", 13, "\r")
    assert tab.value(head.replace("COLUMN", "2")) == "descending"
    assert tab.value(first.replace("COLUMN", "2")) == "74.0 [73.0, 75.0]"
    tab.press("Tab", 9)
    tab.press(" ", 32, " ")
    assert tab.value(head.replace("COLUMN", "3")) == "ascending"
    assert tab.value(head.replace("COLUMN", "2")) == "none"
    assert tab.value(first.replace("COLUMN", "3")) == "−1.2 [−2.0, −0.4]"


def test_numbers_are_sorted_as_numbers_and_texts_among_them_are_last(
    browser: Browser, report: Path
) -> None:
    tab = browser.open(report, 1200)
    column = "[...document.querySelectorAll('#table-main tbody td:nth-child({})')]"
    texts = column + ".map((cell) => cell.textContent.split(' ')[0])"
    click = "document.querySelector('#table-main th:nth-child({}) button').click()"
    tab.value(click.format(5))
    assert tab.value(texts.format(5)) == ["1e−5", "0.0001", "0.0010", "0.0100"]
    for _ in range(2):
        tab.value(click.format(4))
        assert tab.value(texts.format(4))[-1] == "gap"


def test_ten_thousand_rows_are_filtered_sorted_and_paged(
    browser: Browser, long_report: Path
) -> None:
    tab = browser.open(long_report, 1400)
    status = "document.querySelector('#table-cells .status').textContent"
    shown = "document.querySelectorAll('#table-cells tbody tr').length"
    assert tab.value(status) == "Rows 1 to 50 of 10,000 rows"
    assert tab.value(shown) == 50
    tab.value("document.querySelector('#table-cells .controls input').focus()")
    tab.write("reverse_ce 362M")
    filtered = "Rows 1 to 50 of 358 rows (filtered from 10,000)"
    assert tab.value(status) == filtered
    tab.value("[...document.querySelectorAll('#table-cells .controls button')].at(-1).click()")
    assert tab.value(status) == filtered.replace("1 to 50", "51 to 100")
    milliseconds = tab.value(
        "(() => { const start = performance.now();"
        "document.querySelector('#table-cells th:nth-child(8) button').click();"
        "return performance.now() - start; })()"
    )
    assert milliseconds < 1000
    assert tab.complaints() == []
    assert tab.value(OVERFLOW) <= 0


def test_hostile_names_are_texts(browser: Browser, report: Path) -> None:
    tab = browser.open(report, 1200)
    tab.value("document.querySelector('#table-hostile-long th button').click()")
    assert tab.value("document.querySelectorAll('img').length") == 0
    assert tab.value("document.querySelectorAll('script').length") == 3  # two tables, one program
    assert tab.complaints() == []


def test_it_is_printed_on_white_with_its_tables_and_no_controls(
    browser: Browser, report: Path
) -> None:
    tab = browser.open(report, 1200, is_dark=True)
    pdf = tab.pdf()
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 25
    tab.browser.call("Emulation.setEmulatedMedia", tab.session, media="print")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = "getComputedStyle(document.querySelector('{}')).display"
    assert [tab.value(hidden.format(name)) for name in ("#theme", ".controls", "nav")] == [
        "none"
    ] * 3


def test_without_a_script_the_page_still_reads(browser: Browser, report: Path) -> None:
    tab = browser.open(report, 1200)
    browser.call("Emulation.setScriptExecutionDisabled", tab.session, value=True)
    browser.call("Page.reload", tab.session)
    browser.events.clear()
    browser.wait_for("Page.loadEventFired", tab.session)
    text = tab.value("document.body.innerText")
    assert "Rows 1 to 50 of 120; all are in tables/cells.csv" in text
    assert tab.value("document.querySelectorAll('#table-cells tbody tr').length") == 50
    assert tab.value("document.querySelectorAll('button:not([hidden])').length") == 0
