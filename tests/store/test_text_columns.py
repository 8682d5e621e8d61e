"""docs/generation.md documents the columns that the tables of generated text have."""

import re
from pathlib import Path

from w2s_ray.store.text_columns import SAMPLE_COLUMNS, TEXT_RESULTS

PAGE = (Path(__file__).parents[2] / "docs" / "generation.md").read_text()


def test_every_column_is_documented_as_the_code_describes_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w*) \| (.*) \|$", PAGE, re.MULTILINE)
    columns = [*TEXT_RESULTS, *SAMPLE_COLUMNS]
    assert rows == [(c.name, str(c.type), c.unit, c.description) for c in columns]
    assert len({c.name for c in TEXT_RESULTS}) == len(TEXT_RESULTS)
