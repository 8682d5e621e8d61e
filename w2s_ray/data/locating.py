"""Where a prepared row stands in its source, for messages about it.

Prepared tables hold no places: they are needed once in a thousand runs, and the source is read
again then.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from w2s_ray.data.classification import Text, read_text
from w2s_ray.data.columns import Unusable
from w2s_ray.data.preference import Pair, read_pair
from w2s_ray.data.sources import GENERATED, HubPart, read_rows
from w2s_ray.errors import InputError

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
    renamed = data.columns.model_dump(exclude_none=True, exclude={"group"})
    part = HubPart(data.subset, data.split, data.revision)
    for location in data.locations:
        if location.startswith(GENERATED):
            continue
        for place, row in read_rows(location, part):
            parsed: Pair | Text | Unusable | None = None
            with suppress(InputError):  # a row without a label, where that is allowed
                if data.kind == "classification":
                    parsed = read_text(row, place, renamed)
                else:
                    parsed = read_pair(row, place, renamed, data.format)
            if isinstance(parsed, Text):
                yield place, ("", [parsed.text])
            elif isinstance(parsed, Pair):
                yield place, (parsed.prompt, sorted((parsed.chosen, parsed.rejected)))
