"""docs/data.md says what the code does: suffixes, roles, examples, reasons and notes."""

import json
import re
from pathlib import Path

import pytest

from w2s_ray.data import (
    classification,
    columns,
    conversations,
    folders,
    pair_fields,
    preference,
    scores,
    sources,
)
from w2s_ray.data.columns import Unusable
from w2s_ray.data.conversations import ROLES, SPEAKERS
from w2s_ray.data.formats import COMPRESSIONS, FORMATS
from w2s_ray.data.preference import Pair, read_pair

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
CODE = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "w2s_ray/data").glob("*.py"))
PROSE = " ".join(PAGE.split())


def rows_under(heading: str) -> list[list[str]]:
    """The cells of the table whose first line of headings begins so."""
    lines = PAGE.split(f"\n| {heading}")[1].splitlines()[2:]
    table = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_the_table_of_files_is_that_of_the_code():
    packed = ", ".join(f"`{ending}`" for ending in COMPRESSIONS)
    assert rows_under("suffix") == [
        [
            f"`{suffix}`",
            form.content,
            "inside" if form.random_access else packed,
            "`file: row n`" if form.random_access else "`file:line`",
        ]
        for suffix, form in FORMATS.items()
    ]


def test_the_table_of_roles_is_that_of_the_code():
    described = {
        role: speaker.strip("`")
        for aliases, speaker in rows_under("role in the file")
        for role in re.findall(r"`(.*?)`", aliases)
    }
    assert described == {alias: SPEAKERS[role] for alias, role in ROLES.items()}


def test_the_examples_are_one_pair():
    (block,) = re.findall(r"```jsonl\n(.*?)```", PAGE, re.DOTALL)
    examples = [json.loads(line) for line in block.splitlines()]
    assert len(examples) == 7
    pairs = {read_pair(row, "x:1", {}) for row in examples}
    assert pairs == {Pair("\n\nHuman: Why?\n\nAssistant:", " Because.", " No.")}


@pytest.mark.parametrize("table", ["reason", "note"])
def test_every_reason_and_note_is_described_and_there_is_no_other(table):
    described = {re.sub("…", "", cells[0].strip("`")) for cells in rows_under(table)}
    if table == "reason":
        plain = re.sub(r'Unusable\(f"(.*?)\{.*?\}(.*?)"\)', r'Unusable("\1\2")', CODE)
        given = set(re.findall(r'Unusable\(\s*"(.*?)"', plain))
        given |= set(re.findall(r'unusable\["(.*?)"\]', CODE)) | {
            "no label",
            preference.NO_COMMON_PROMPT,
        }
    else:
        constants = {
            *(pair_fields.REPEATED, preference.REPEATED_IN_ONE, preference.NOT_IN_ANSWERS),
            *(pair_fields.NO_PROMPT, pair_fields.ONE_AS_TEXT, conversations.AS_TEXT),
            *(scores.CONTRADICTED, scores.TIED, scores.NOT_FINITE, classification.DECIMALS),
        }
        given = constants | {f"{begin} " for begin in re.findall(r'notes\[f"(.*?:) \{', CODE)}
        given |= {f"{kind}: " for kind in re.findall(r'count_note\(notes, "(.*?)"', CODE)}
        given |= {f"{columns.COLUMNS_NOT_READ}: ", sources.REPEATED_LINKS}
    assert described == given


def test_the_page_names_what_folders_and_rows_leave_out():
    for name in (*folders.METADATA, folders.STATE, *scores.SCORES):
        assert f"`{name}`" in PROSE
    assert f"up to {preference._BY_CHANCE} characters" in PROSE


def test_a_reason_of_the_page_is_one_that_rows_get():
    row = {"chosen": [{"from": "function_call", "value": "{}"}], "rejected": []}
    reason = read_pair(row, "x:1", {})
    assert isinstance(reason, Unusable) and f"`{reason.reason}`" in PAGE
