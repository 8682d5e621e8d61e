"""Every limit is used, is on the page, and is named by the line that refuses something."""

import re
from pathlib import Path

import pytest

from w2s_ray.foreign import page
from w2s_ray.foreign.limits import LIMITS, exceeded, limit

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "".join(
    path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "w2s_ray").rglob("*.py"))
    if path.name != "limits.py"
)


def test_the_page_is_current() -> None:
    """`python -m w2s_ray.foreign.page docs` writes it."""
    assert (ROOT / "docs" / page.PAGE).read_text(encoding="utf-8") == page.page()


def test_names_are_unique_and_values_are_bounds() -> None:
    assert all(re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name) for name in LIMITS)
    assert all(row.value > 0 and row.about.endswith(".") for row in LIMITS.values())


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_used(name: str) -> None:
    assert f'"{name}"' in SOURCE or f"'{name}'" in SOURCE


def test_a_line_names_the_limit_and_how_much_there_was() -> None:
    most = limit("spec.bytes")
    assert exceeded("spec.bytes", most + 1) == (
        "given 1,048,577 bytes, expected at most 1,048,576 (limit spec.bytes)"
    )
    assert exceeded("spec.depth") == (
        "given more than 50 levels, expected at most 50 (limit spec.depth)"
    )


def test_there_is_no_limit_of_an_unknown_name() -> None:
    with pytest.raises(KeyError):
        limit("spec.colour")
