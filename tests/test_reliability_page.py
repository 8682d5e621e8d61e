"""docs/reliability.md names tests that exist and episodes that are drawn, and every promise."""

import ast
import re
from pathlib import Path

import pytest

from tests.testing.chaos.episodes import KINDS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
PROMISES = 8  # of the design; further ones may stand below them


def rows(title: str) -> list[list[str]]:
    """The cells of the first table of a section, without its head."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_promise_has_a_test() -> None:
    promises = rows("Promises")
    assert len(promises) >= PROMISES
    for promise, tests in promises:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", tests), promise


def test_every_kind_of_episode_is_described() -> None:
    described = {
        (store, kind) for store, kinds, _ in rows("Episodes") for kind in re.findall(r"\w+", kinds)
    }
    assert described == {(store, kind) for store, kinds in KINDS.items() for kind in kinds}
