"""docs/prompts.md says what the code does: families, columns, numbers, examples."""

import json
import re
from pathlib import Path

from w2s_ray.spec.prompts import SPLITS, TIMEOUT_SECONDS
from w2s_ray.tasks.constraints import PHRASINGS
from w2s_ray.tasks.families import FAMILIES, TRAIN_FAMILIES, verify_check
from w2s_ray.tasks.prompt_files import COLUMNS
from w2s_ray.tasks.topics import TOPICS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())


def rows_under(heading: str) -> list[list[str]]:
    """The cells of the table whose first line of headings begins so."""
    lines = PAGE.split(f"\n| {heading}")[1].splitlines()[2:]
    table = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_the_table_of_families_is_that_of_the_code():
    expected = []
    for family in FAMILIES.values():
        parameters = ", ".join(f"`{name}`" for name in family.choices[0])
        name = f"`{family.name}`" + (f" ({parameters})" if parameters else "")
        split = "train" if family.name in TRAIN_FAMILIES else "transfer"
        expected.append([name, split, family.wording, family.definition.replace("``", "`")])
    assert rows_under("family") == expected


def test_columns_splits_and_numbers_are_those_of_the_code():
    assert [row[0].strip("`") for row in rows_under("column")] == list(COLUMNS)
    assert all(f"`{split}`" in PAGE for split in SPLITS)
    assert f"one of {len(TOPICS)} topics in one of five phrasings" in PROSE
    assert len(PHRASINGS) == 5
    assert f"`timeout_seconds` ({TIMEOUT_SECONDS:g} by default" in PROSE


def test_rows_of_the_example_are_valid():
    example = re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)[0]
    for line in example.splitlines():
        row = json.loads(line)
        assert set(row) <= set(COLUMNS)
        verify_check(row["check"], "here")
