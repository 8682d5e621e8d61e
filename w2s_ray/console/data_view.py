"""What became of the rows: how many are used, and why the others are not."""

from collections.abc import Iterator, Mapping
from typing import Any


def lines(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """A line on the rows of a data set, and one on its traps where there are any.

    Args:
        report: of the step ``prepare``.
    """
    splits = report["splits"]
    yield f"{name}: " + ", ".join(f"{of['rows']:,} {split}" for split, of in splits.items())
    for origin, of in report["read"].items():
        told = ", ".join(f"{count:,} {reason}" for reason, count in of["unusable"].items())
        if told:
            yield f"{name}: not usable of {of['rows']:,} rows of {origin}: {told}"
    overlap = report["overlap"].get("any", {})
    if overlap.get("prompts"):
        yield (
            f"{name}: {overlap['prompts']:,} prompts or texts ({100 * overlap['share']:.1f} %) "
            "stand in more than one of the given splits"
        )
