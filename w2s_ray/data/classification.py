"""Parsing of raw classification rows, and the class index 0 … K-1 of each label."""

import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from w2s_ray.data.class_names import is_blank
from w2s_ray.data.columns import Unusable, no_value, note_unread, required, wrong_type
from w2s_ray.data.conversations import AS_TEXT, messages_in, note_fields, read_turns, transcript
from w2s_ray.errors import InputError

DECIMALS = "labels written as decimals; read as integers"
"""Whole numbers such as 4.0, as libraries write integers of which some are missing."""


class Text(NamedTuple):
    """A text and its label as written."""

    text: str
    label: str


def read_text(
    row: Mapping[str, Any],
    where: str,
    renamed: Mapping[str, str],
    notes: Counter[str] | None = None,
) -> Text | Unusable:
    """Parse one labelled text.

    Args:
        row: a raw row with the fields text (a text, or a conversation, which is rendered as a
            transcript) and label.
        where: file and line of the row, for messages.
        renamed: our field name → the column's name in this data.
        notes: counts what a reader must know of rows, such as columns that are not read.

    Raises:
        InputError: a field is missing, has no value, or has the wrong type (labels: integers,
            also as 4.0, or texts).
    """
    notes = Counter() if notes is None else notes
    text = required(row, where, "text", renamed)
    label = required(row, where, "label", renamed)
    columns = (renamed.get("text", "text"), renamed.get("label", "label"))
    if not isinstance(text, str | list):
        raise wrong_type(where, columns[0], text, "a text or a list of {role, content}")
    if is_blank(label):
        raise no_value(where, "label", columns[1])
    if isinstance(label, float | Decimal) and _is_whole(label):
        notes[DECIMALS] += 1
        label = int(label)
    if not isinstance(label, int | str):
        raise wrong_type(where, columns[1], label, "an integer or a text")
    if len(row) > 2:
        note_unread(row, columns, notes)
    messages = messages_in(text, where, columns[0]) if isinstance(text, str) else text
    if messages is not None:
        if isinstance(text, str):
            notes[AS_TEXT] += 1
        unread: set[str] = set()
        turns = read_turns(messages, where, columns[0], unread)
        if isinstance(turns, Unusable):
            return turns
        note_fields(unread, notes)
        text = transcript(turns)
    if not text:
        return Unusable("empty text")
    return Text(text, str(int(label)) if isinstance(label, int) else label)


def _is_whole(number: float | Decimal) -> bool:
    if isinstance(number, float):
        return number.is_integer()
    return number.is_finite() and number == number.to_integral_value()


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
