"""The page is one file that needs nothing else, and no text in it becomes markup."""

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser

import pytest

from tests.report.demo_page import HOSTILE, demo_page, hostile_blocks, long_table
from w2s_ray.report.html import html
from w2s_ray.report.page import Cell, Page, Section, Table, TableColumn
from w2s_ray.report.shown import cell_text, plain

ADDRESSES = ("href", "src", "action", "data", "srcset", "poster", "formaction", "xlink:href")


class Parsed(HTMLParser):
    """Elements, their attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        where = {"script": self.scripts, "style": self.styles}.get(self._open, self.texts)
        where.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return html(demo_page())


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def test_no_name_becomes_an_element_a_handler_or_a_script(parsed: Parsed) -> None:
    assert parsed.named("img") == []
    assert len(parsed.scripts) == 3  # rows of the two long tables, and the page's own program
    kinds = [attributes.get("type") for attributes in parsed.named("script")]
    assert kinds == ["application/json", "application/json", None]
    handlers = [name for _, attrs in parsed.elements for name in attrs if name.startswith("on")]
    assert handlers == []
    text = "\n".join(parsed.texts)
    for name in HOSTILE:
        assert plain(name) in text


def test_the_page_refers_to_itself_and_its_own_files_alone(page: str, parsed: Parsed) -> None:
    addresses = [
        value for _, attrs in parsed.elements for name, value in attrs.items() if name in ADDRESSES
    ]
    own = re.compile(r"#[\w-]+|(tables|figures)/[a-z0-9-]+\.csv|data:,")
    assert [address for address in addresses if not own.fullmatch(address or "")] == []
    for text in (*parsed.styles, parsed.scripts[-1]):
        assert not re.search(r"https?:|//\w|@import|url\(", text.replace("// ", ""))
    styles = [attrs.get("style") or "" for _, attrs in parsed.elements]
    assert all(part.startswith("#") for s in styles for part in re.findall(r"url\(([^)]*)", s))
    # Only texts that came with the page's data hold an address; none is an attribute.
    values = [
        v or "" for t, attrs in parsed.elements for n, v in attrs.items() if n != "aria-label"
    ]
    assert [value for value in values if re.search(r"https?:", value)] == []


def test_ids_are_unique_and_every_anchor_is_there(parsed: Parsed) -> None:
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"] or "" for _, attrs in parsed.elements if "href" in attrs]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    labels = [a["aria-labelledby"] for _, a in parsed.elements if "aria-labelledby" in a]
    assert set(labels) <= set(ids)


def test_the_page_has_what_a_reader_without_sight_or_mouse_needs(parsed: Parsed) -> None:
    assert parsed.named("html") == [{"lang": "en"}]
    assert len(parsed.named("h1")) == len(parsed.named("main")) == len(parsed.named("title")) == 1
    assert parsed.named("a")[0] == {"class": "skip", "href": "#content"}
    drawings = parsed.named("svg")
    assert len(drawings) == 8
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    assert all(head.get("scope") == "col" for head in parsed.named("th"))
    assert {box.get("tabindex") for box in parsed.named("div") if box["class"] == "box"} == {"0"}


def test_rows_for_the_script_are_what_the_table_shows() -> None:
    (table,) = (b for b in hostile_blocks() if isinstance(b, Table) and b.name == "hostile-long")
    page = html(Page("t", "s", (Section("a", "A", (table,)),)))
    raw = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert raw and not set("<>&") & set(raw[1])
    columns = json.loads(raw[1])
    texts = [
        [column["values"][place] for place in column["rows"]]
        if "rows" in column
        else column["values"]
        for column in columns
    ]
    expected = [
        [cell_text(*pair) for pair in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    assert [list(row) for row in zip(*texts, strict=True)] == expected


def test_ten_thousand_rows_are_less_than_five_megabytes() -> None:
    """Even if no two of their 40,000 intervals are the same."""
    draw = random.Random(0)
    columns = (TableColumn("key"), *(TableColumn(f"n{i}", "percent", 3) for i in range(6)))
    rows = tuple(
        (Cell(text=f"{draw.getrandbits(64):x}"), *(Cell(*(draw.random(),) * 3) for _ in range(6)))
        for _ in range(10_000)
    )
    table = Table("all", "All", columns, rows)
    page = html(Page("t", "s", (Section("a", "A", (table,)),)))
    assert len(page.encode()) < 5e6
    page = html(Page("t", "s", (Section("a", "A", (long_table(10_000),)),)))
    assert len(page.encode()) < 1e6


def test_the_same_page_has_the_same_bytes(page: str) -> None:
    assert html(demo_page()) == page


def test_only_the_script_that_is_in_the_page_may_run(parsed: Parsed) -> None:
    (policy,) = (m["content"] or "" for m in parsed.named("meta") if "http-equiv" in m)
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[-1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
