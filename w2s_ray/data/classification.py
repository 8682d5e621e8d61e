"""Parsing of raw classification rows, and the class index 0 … K-1 of each label."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from w2s_ray.data.class_names import is_blank
from w2s_ray.data.columns import Unusable, required, wrong_type
from w2s_ray.errors import InputError


class Text(NamedTuple):
    """A text and its label as written."""

    text: str
    label: str


def read_text(row: Mapping[str, Any], where: str, renamed: Mapping[str, str]) -> Text | Unusable:
    """Parse one labelled text.

    Args:
        row: a raw row with the fields text and label.
        where: file and line of the row, for messages.
        renamed: our field name → the column's name in this data.

    Raises:
        InputError: a field is missing, has no value, or has the wrong type (labels: integers or
            texts).
    """
    text = required(row, where, "text", renamed)
    label = required(row, where, "label", renamed)
    if not isinstance(text, str):
        raise wrong_type(where, renamed.get("text", "text"), text, "a text")
    if not isinstance(label, int | str):
        raise wrong_type(where, renamed.get("label", "label"), label, "an integer or a text")
    if is_blank(label):
        raise InputError(f"{where}: field '{renamed.get('label', 'label')}' has no value")
    if not text:
        return Unusable("empty text")
    return Text(text, str(int(label)) if isinstance(label, int) else label)


def class_indices(first_rows: Mapping[str, str]) -> dict[str, int]:
    """The class index of each label: in numeric order if all are integers, else alphabetical.

    Integers that are written in two ways (1 and 01) are two classes, the one that comes first in
    the alphabet first: the order of the rows changes nothing.

    Args:
        first_rows: each label → file and line of the first row that has it.

    Raises:
        InputError: fewer than two classes, or a mix of integers and texts.
    """
    numbers = [label for label in first_rows if re.fullmatch(r"-?\d+", label)]
    words = sorted(set(first_rows) - set(numbers))
    if numbers and words:
        raise InputError(
            f"{first_rows[words[0]]}: label '{words[0]}' among integers such as {numbers[0]} "
            f"({first_rows[numbers[0]]}); expected all integers or all texts"
        )
    if len(first_rows) < 2:
        given = "".join(f"'{label}' ({where})" for label, where in first_rows.items())
        raise InputError(f"labels: expected at least two classes, given {given or 'none'}")
    in_order = sorted(numbers, key=lambda label: (int(label), label))
    return {label: index for index, label in enumerate(words or in_order)}
