"""Tests that a list names: the witnesses, and those that take their time.

    python -m tests.testing.listed quick.xml    # writes the second list, from times as measured

where ``quick.xml`` is what ``pytest --junitxml quick.xml`` wrote of the tests that start nothing.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).parents[1]
SLOWER = TESTS / "over_half_a_second.txt"
SECONDS = 0.5


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(line for line in path.read_text().splitlines() if line and line[0] != "#")


WITNESSES = _lines(TESTS / "witnesses.txt")
"""What ``make test`` runs of the tests that take long or start processes: files, tests, or single
values of their parameters, as pytest names them."""

SLOWER_ONES = frozenset(_lines(SLOWER))
"""What ``make check`` leaves to ``make test`` of those that start nothing: tests, with all values
of their parameters."""


def is_witness(test: str) -> bool:
    """Whether a test, by pytest's name for it, is one of them or in one of their files."""
    return any(test == of or test.startswith((f"{of}::", f"{of}[")) for of in WITNESSES)


def takes_its_time(test: str) -> bool:
    """Whether a test, by pytest's name for it, takes over half a second with some parameters."""
    return test.partition("[")[0] in SLOWER_ONES


def slower_ones(report: ElementTree.Element) -> set[str]:
    """The tests of a report in JUnit's form that took longer, as pytest names them."""
    return {_name(case) for case in report.iter("testcase") if float(case.attrib["time"]) > SECONDS}


def _name(case: ElementTree.Element) -> str:
    """``tests/spec/test_loader.py::test_it``, of a case whose class is tests.spec.test_loader."""
    path = case.attrib["classname"].replace(".", "/")
    return f"{path}.py::{case.attrib['name'].partition('[')[0]}"


def written(tests: Iterable[str]) -> str:
    """The file that lists them."""
    lines = [
        "# Tests that start nothing, but took over half a second on one core. `make check` leaves",
        "# them to `make test`. Written by tests/testing/listed.py from times as measured.",
        "",
        *sorted(tests),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    SLOWER.write_text(written(slower_ones(ElementTree.parse(sys.argv[1]).getroot())))
