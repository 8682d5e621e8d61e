"""Markdown, LaTeX and CSV of a page: escaped, complete, compiled where pdfLaTeX is there."""

import csv
import io
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.report.demo_page import HOSTILE, demo_page, figures, long_table, main_table
from w2s_ray.report import write
from w2s_ray.report.csv_files import table_csv
from w2s_ray.report.latex import latex
from w2s_ray.report.latex_text import escaped
from w2s_ray.report.markdown import markdown
from w2s_ray.report.page import Cell, Page, Section, Table, TableColumn, Text
from w2s_ray.report.page_checks import check_page
from w2s_ray.report.shown import cell_text, number, plain
from w2s_ray.report.write import write_report

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}\usepackage{siunitx}\usepackage{longtable}
\begin{document}
%s
\end{document}
"""


@pytest.mark.parametrize(
    ("value", "kind", "digits", "text"),
    [
        (0.71249, "percent", 1, "71.2"),
        (0.0123, "points", 1, "+1.2"),
        (-0.0123, "points", 1, "−1.2"),
        (-0.0001, "points", 1, "0.0"),
        (1e-5, "number", 1, "1e−5"),
        (-3.25e-7, "number", 2, "−3.25e−7"),
        (0.0, "number", 2, "0.00"),
        (134515008, "number", 0, "134515008"),
        (float("nan"), "percent", 1, "nan"),
        (float("-inf"), "number", 1, "−∞"),
    ],
)
def test_numbers_as_they_are_read(value: float, kind: str, digits: int, text: str) -> None:
    assert number(value, kind, digits) == text  # type: ignore[arg-type]


def test_an_open_interval_a_text_and_a_missing_value() -> None:
    column = TableColumn("n", "number", 1)
    assert cell_text(Cell(1.0, 0.5, None), column) == "1.0 [0.5, ∞]"
    assert cell_text(Cell(1.0, None, 2.0), column) == "1.0 [−∞, 2.0]"
    assert cell_text(Cell(1.0, text="not\nresolved"), column) == "not↵resolved"
    assert cell_text(Cell(), column) == "–"


def test_names_are_in_one_line_without_anything_invisible() -> None:
    assert plain("a\r\nb\u202ec\u0000\ud800é 中\u200d") == "a↵b\\u202ec\\u0000\\ud800é 中\u200d"


def test_no_name_marks_anything_up_in_markdown() -> None:
    page = demo_page()
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown(page))
    inline = [child for token in tokens for child in token.children or []]
    markup = [t.content for t in (*tokens, *inline) if t.type in ("html_block", "html_inline")]
    anchors = [f'<a id="{section.anchor}">' for section in page.sections]
    assert [text for text in markup if text != "</a>"] == anchors
    links = [str(t.attrs["href"]) for t in inline if t.type == "link_open"]
    assert all(link.startswith(("#", "figures/", "tables/")) for link in links)
    images = [str(t.attrs["src"]) for t in inline if t.type == "image"]
    assert len(images) == 8 and all(image.startswith("figures/") for image in images)
    strong = [i for i, t in enumerate(inline) if t.type == "strong_open"]
    assert [inline[i + 1].content for i in strong if inline[i + 1].content == "bold"] == []
    shown = "".join(token.content for token in inline if token.type in ("text", "text_special"))
    for name in HOSTILE:
        assert plain(name) in shown


def test_a_long_table_in_markdown_says_where_its_other_rows_are() -> None:
    page = Page("t", "s", (Section("a", "A", (long_table(120),)),))
    text = markdown(page)
    assert text.count("\n| agreement") == 50
    assert "The first 50 of 120 rows; all are in [tables/cells.csv](tables/cells.csv)." in text


def test_a_table_as_csv_is_unrounded_and_has_its_intervals() -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(main_table()))))
    assert float(rows[1]["accuracy"]) == 0.71 + 0.01
    assert float(rows[1]["accuracy low"]) == 0.71
    assert rows[3]["PGR"] == "gap not resolved"
    assert rows[3]["PGR low"] == ""
    assert "rate low" not in rows[0]
    both = Table("b", "", (TableColumn("n", "number"),), ((Cell(0.3, text="about ⅓"),), (Cell(),)))
    assert table_csv(both) == "n,n text\n0.3,about ⅓\n,\n"
    share = Table("s", "", (TableColumn("share, %", "percent"),), ((Cell(0.5, 0.4, 0.6),),))
    assert table_csv(share) == "share,share low,share high\n0.5,0.4,0.6\n"
    names = Table("n", "", (TableColumn("n"),), tuple((Cell(text=name),) for name in HOSTILE))
    read = list(csv.reader(io.StringIO(table_csv(names), newline="")))
    assert [row[0] for row in read[1:]] == list(HOSTILE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & #1_a $x$ {y}", r"50\% \& \#1\_a \$x\$ \{y\}"),
        ("\\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("~^|<>", r"\textasciitilde{}\textasciicircum{}\textbar{}\textless{}\textgreater{}"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("[x] *", "{[}x{]} {*}"),
        ("é ñ 中 ≤ −1", r"\'{e} \~{n} \texttt{U+4E2D} $\leq$ $-$1"),
        ("a\n\nb\u202e", r"a$\hookleftarrow$$\hookleftarrow$b\textbackslash{}u202e"),
    ],
)
def test_texts_in_latex(text: str, expected: str) -> None:
    assert escaped(text) == expected
    assert escaped(text).isascii()


def test_a_table_in_latex() -> None:
    text = latex(main_table())
    assert r"\caption{Accuracy by loss, with 95 \% intervals}\label{tab:main}" in text
    assert "lS[table-format=2.1]@{~}lS[table-format=-1.1,retain-explicit-plus]@{~}l" in text
    assert r"& \multicolumn{2}{c}{gap not resolved} & {\num{1e-5}} & 5 & undecided \\" in text
    assert "longtable" not in text
    assert r"\begin{longtable}" in latex(long_table(41))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdfLaTeX is not installed")
@pytest.mark.long
def test_tables_compile_with_input(tmp_path: Path) -> None:
    write_report(demo_page(), tmp_path / "out")
    inputs = [rf"\input{{{path}}}" for path in sorted((tmp_path / "out" / "tables").glob("*.tex"))]
    assert len(inputs) == 4
    (tmp_path / "paper.tex").write_text(DOCUMENT % "\n".join(inputs))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert run.returncode == 0, run.stdout[-2000:]


@pytest.mark.long
def test_a_report_is_written_whole_and_again_with_the_same_bytes(tmp_path: Path) -> None:
    address = write_report(demo_page(), tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out"
    assert address == out / "index.html"
    first = contents(out)
    names = {figure.name for figure in figures()} | {"hostile", "hostile-map"}
    expected = {f"figures/{name}.{kind}" for name in names for kind in ("svg", "png", "csv")}
    tables = ("main", "cells", "hostile", "hostile-long")
    expected |= {f"tables/{name}.{kind}" for name in tables for kind in ("csv", "tex")}
    assert set(first) == expected | {"index.html", "report.md"}
    (out / "figures" / "old.svg").write_text("of an earlier study")
    (out / "notes.txt").write_text("the reader's own")
    write_report(demo_page(), out)
    assert contents(out) == {**first, "notes.txt": b"the reader's own"}


@pytest.mark.long
def test_a_report_without_tables_leaves_none_of_the_one_before(tmp_path: Path) -> None:
    write_report(demo_page(), tmp_path)
    write_report(Page("t", "s", (Section("a", "A", (Text("text"),)),)), tmp_path)
    assert set(contents(tmp_path)) == {"index.html", "report.md"}


@pytest.mark.long
def test_a_report_that_cannot_be_finished_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(demo_page(), tmp_path)
    before = contents(tmp_path)

    def fails(page: Page) -> str:
        raise OSError("no space")

    monkeypatch.setattr(write, "markdown", fails)
    with pytest.raises(OSError, match="no space"):
        write_report(demo_page(60), tmp_path)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_page_that_cannot_be_written_is_refused_with_the_place() -> None:
    table, figure = main_table(), figures()[0]
    wrong_line = replace(figure.lines[0], low=[0.1])
    cases = [
        ((replace(table, name="../up"),), r"table '\.\./up': expected a name of \[a-z0-9-\]\+"),
        ((table, table), "table 'main': two have this name"),
        ((replace(table, rows=(table.rows[0][:3],)),), "row 1: 3 cells, expected 7"),
        ((replace(figure, lines=(wrong_line,)),), "1 values of low, expected 4"),
        ((replace(figure, kind="heat map"),), "a heat map without the column 'x'"),
    ]
    for blocks, message in cases:
        with pytest.raises(ValueError, match=message):
            check_page(Page("t", "s", (Section("a", "A", blocks),)))
    with pytest.raises(ValueError, match="two sections have it"):
        check_page(Page("t", "s", (Section("a", "A", ()), Section("a", "B", ()))))
