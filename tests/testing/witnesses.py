"""The tests that ``make test`` runs of those that take long or start processes."""

from pathlib import Path

LINES = Path(__file__).parents[1].joinpath("witnesses.txt").read_text().splitlines()
WITNESSES = tuple(line for line in LINES if line and not line.startswith("#"))
"""Files, tests, or single values of their parameters, as pytest names them."""


def is_witness(test: str) -> bool:
    """Whether a test, by pytest's name for it, is one of them or in one of their files."""
    return any(test == of or test.startswith((f"{of}::", f"{of}[")) for of in WITNESSES)
