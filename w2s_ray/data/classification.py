"""A raw row as (text, label), and labels as class indices 0 … K-1."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from w2s_ray.data.columns import Unusable, required, wrong_type
from w2s_ray.errors import InputError


class Text(NamedTuple):
    """A text and the name of its class, as written."""

    text: str
    label: str


def read_text(row: Mapping[str, Any], where: str, renamed: Mapping[str, str]) -> Text | Unusable:
    """One labelled text; ``where`` and ``renamed`` as in ``columns.required``.

    Raises:
        InputError: a field is missing or of the wrong type (labels: integers or texts).
    """
    text = required(row, where, "text", renamed)
    label = required(row, where, "label", renamed)
    if not isinstance(text, str):
        raise wrong_type(where, renamed.get("text", "text"), text, "a text")
    if not isinstance(label, int | str):
        raise wrong_type(where, renamed.get("label", "label"), label, "an integer or a text")
    if not text:
        return Unusable("empty text")
    return Text(text, str(int(label)) if isinstance(label, int) else label)


def class_indices(places: Mapping[str, str]) -> dict[str, int]:
    """Class index of each label: by number if all are integers (in CSV too), else by alphabet.

    Args:
        places: every label → where it was first found.

    Raises:
        InputError: fewer than two classes, or integers and words side by side.
    """
    numbers = [label for label in places if re.fullmatch(r"-?\d+", label)]
    words = sorted(set(places) - set(numbers))
    if numbers and words:
        raise InputError(
            f"{places[words[0]]}: label '{words[0]}' among integers such as {numbers[0]} "
            f"({places[numbers[0]]}); expected all integers or all texts"
        )
    if len(places) < 2:
        found = "".join(f"'{label}' ({place})" for label, place in places.items())
        raise InputError(f"labels: expected at least two classes, found {found or 'none'}")
    return {label: index for index, label in enumerate(words or sorted(numbers, key=int))}
