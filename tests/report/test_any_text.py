"""Whatever a name or class is, a report has the same structure: a text marks nothing up.

The structure of a page with any texts is compared with that of the same page with harmless ones,
by parsers of HTML and Markdown that are not ours.
"""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.testing.fuzzing import fuzzed
from w2s_ray.report.html import html
from w2s_ray.report.latex_text import escaped
from w2s_ray.report.markdown import markdown
from w2s_ray.report.page import Cell, Page, Section, Table, TableColumn, Text, Warning
from w2s_ray.report.shown import plain

PIECES = [*"<>&\"'`*_~[](){}#|\\$%^!-+=: \n\t\r\x1b\u202e\u2028\x00", "\ud800", "</script>", "<!--"]
PIECES += ["```", "$$", "http://a.b", "a@b.c", "1. ", "- ", "> ", "    ", "&lt;", "\\input{x}", "x"]
PIECES += ["0", "12", ".", ")", "--", "=="]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join),
    st.text(st.characters(codec=None), min_size=1, max_size=20),
).filter(lambda text: plain(text).strip())
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
LATEX = re.compile(
    r"\\[{}$&#%_,]|\\text[a-z]+\{\}|\\ldots\{\}|\\texttt\{(\\char34|U\+[0-9A-F]{4,6})\}"
    r"|\$(\\[A-Za-z]+(\{1\}\{2\})?|-|\^2|\^\\circ)\$|\\[`'^~\"cv]\{[A-Za-z]\}|\{[][*]\}|\{\}(?=-)|~"
)


def page(text: str) -> Page:
    """A page that has the text wherever a page may have one."""
    columns = (TableColumn(text), TableColumn(text, "percent"))
    rows = ((Cell(text=text), Cell(0.5, 0.4, 0.6)), (Cell(text=text), Cell()))
    return Page(
        text,
        text,
        (
            Section("one", text, (Text(text, text), Warning(text))),
            Section("two", text, (Table("table", text, columns, rows, text, (text,)),)),
        ),
    )


class Structure(HTMLParser):
    """The elements of a page with their attributes' names, and its texts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[object] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag: str) -> None:
        self.elements.append(tag)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", data))


@fuzzed(100)
@given(TEXTS)
def test_no_text_changes_the_elements_of_a_page(text: str) -> None:
    content = html(page(text))
    assert Structure(content).elements == Structure(html(page("x."))).elements
    assert not HIDDEN.search(content)


@fuzzed(100)
@given(TEXTS)
@example("\\].")
@example("    .")
@example("00.")
@example("123456789) x")
@example("---")
def test_no_text_marks_anything_up_in_markdown(text: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")

    def structure(content: str) -> list[str]:
        tokens = parser.parse(content)
        every = [inner for token in tokens for inner in (token, *(token.children or ()))]
        plain = ("text", "text_special", "softbreak")
        return [token.type for token in every if token.type not in plain]

    content = markdown(page(text))
    assert structure(content) == structure(markdown(page("x.")))
    assert not HIDDEN.search(content)


@given(TEXTS)
def test_no_text_is_a_command_in_latex(text: str) -> None:
    assert not re.search(r"[\\{}$&#%^_\x00-\x1f]", LATEX.sub("", escaped(text)))
