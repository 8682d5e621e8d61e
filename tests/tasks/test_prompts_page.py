"""docs/prompts.md says what the code does: families, columns, numbers, examples."""

import json
import re
from pathlib import Path

from w2s_ray.spec.families import TRAIN_FAMILIES
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.families import FAMILIES, obeys
from w2s_ray.tasks.topics import PHRASINGS, TEST_TOPICS, TOPICS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())


def rows_under(heading: str) -> list[list[str]]:
    """The cells of the table whose first line of headings begins so."""
    lines = PAGE.split(f"\n| {heading}")[1].splitlines()[2:]
    table = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_the_table_of_families_is_that_of_the_code():
    expected = []
    for name, rule in FAMILIES.items():
        parameters = ", ".join(f"`{parameter}`" for parameter in rule.values)
        split = "train" if name in TRAIN_FAMILIES else "transfer"
        shown = f"`{name}`" + (f" ({parameters})" if parameters else "")
        expected.append([shown, split, rule.asks])
    assert [row[:3] for row in rows_under("family")] == expected
    assert all(row[3] for row in rows_under("family"))


def test_columns_splits_and_numbers_are_those_of_the_code():
    columns = [row[0].strip("`") for row in rows_under("column")]
    assert columns == ["prompt", "check", "split", "family", "topic"]
    assert all(f"`{split}`" in PAGE for split in SPLITS)
    assert f"one of {len(TOPICS)} topics in one of {len(PHRASINGS)} phrasings" in PROSE
    assert len(TEST_TOPICS) == len(TOPICS) // 5
    assert f"`timeout_seconds` ({Prompts().timeout_seconds:g} by default" in PROSE


def test_rows_of_the_example_are_valid():
    example = re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)[0]
    for line in example.splitlines():
        obeys(json.loads(line)["check"], "a")
