"""Rows of a data set: how many are used, and why the others are not."""

from collections.abc import Iterator, Mapping
from typing import Any


def lines(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """Lines on the rows of a data set, for people.

    Args:
        report: metric of the ``prepare`` step.
    """
    splits = report["splits"]
    yield f"{name}: " + ", ".join(f"{of['rows']:,} {split}" for split, of in splits.items())
    for origin, of in report["read"].items():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in of["unusable"].items())
        if reasons:
            yield f"{name}: not usable of {of['rows']:,} rows of {origin}: {reasons}"
    overlap = report["overlap"].get("any", {})
    if overlap.get("prompts"):
        yield (
            f"{name}: {overlap['prompts']:,} prompts or texts ({100 * overlap['share']:.1f} %) "
            "are in more than one of the given splits"
        )
