"""Where a prepared row stands in its source, for messages about it.

Prepared tables hold no places: they are needed once in a thousand runs, and the source is read
again then.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from w2s_ray.data.classification import read_text
from w2s_ray.data.columns import Unusable
from w2s_ray.data.preference import read_pair
from w2s_ray.data.sources import GENERATED, HubPart, read_rows

if TYPE_CHECKING:
    from w2s_ray.spec.schema import DataSpec


def place_of(data: "DataSpec", prompt: str, answers: Sequence[str]) -> str | None:
    """File and line of the first row with these texts; None if the source has no such row.

    Args:
        answers: in any order.
    """
    wanted = prompt, sorted(answers)
    return next((place for place, texts in _texts(data) if texts == wanted), None)


def _texts(data: "DataSpec") -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Yields the place, the prompt and the sorted answers of every usable row."""
    renamed = data.columns.model_dump(exclude_none=True)
    part = HubPart(data.subset, data.split, data.revision)
    for location in data.locations:
        if location.startswith(GENERATED):
            continue
        for place, row in read_rows(location, part):
            if data.kind == "classification":
                text = read_text(row, place, renamed)
                if not isinstance(text, Unusable):
                    yield place, ("", [text.text])
                continue
            pair = read_pair(row, place, renamed, data.format)
            if not isinstance(pair, Unusable):
                yield place, (pair.prompt, sorted((pair.chosen, pair.rejected)))
