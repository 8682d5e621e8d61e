"""Rows of a data set: how many are used, and why the others are not."""

from collections.abc import Iterator, Mapping
from typing import Any

from w2s_ray.spec.training import Training


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


def token_line(data: str, model: str, counts: Mapping[str, int], training: Training) -> str:
    """One line on the tokens of a data set as a model reads them, for people.

    Args:
        counts: as of ``running.token_counts``.
    """
    rows = f"{counts['rows']:,} rows"
    if counts["rows"] < counts["of_rows"]:
        rows = f"the first {rows} of {counts['of_rows']:,}"
    line = f"{data}, {model}: {counts['tokens']:,} tokens in {rows}"
    if counts["truncated"]:
        line += f"; {counts['truncated']:,} cut to {training.max_length_tokens:,} tokens"
    if counts["identical"]:
        kept = "no gradient" if training.identical_pairs == "keep" else "left out of training"
        line += (
            f"; {counts['identical']:,} pairs with the same tokens for both answers ({kept}, "
            "scored as ties)"
        )
    return line
