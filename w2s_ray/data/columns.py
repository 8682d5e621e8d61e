"""Fields of a raw row under the column names of the researcher's files."""

from collections import Counter
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from w2s_ray.data.formats import format_of
from w2s_ray.errors import InputError
from w2s_ray.foreign.rows import count_note, listed

COLUMNS_NOT_READ = "columns not read"
"""The beginning of the note on a row with columns that nothing reads."""

_COMPARED = 1_000
"""Most columns that a missing name is compared with."""


class Unusable(NamedTuple):
    """A well-formed row that cannot be used for training; counted, never dropped silently."""

    reason: str


def required(row: Mapping[str, Any], where: str, name: str, renamed: Mapping[str, str]) -> Any:
    """The value of our field ``name``.

    Args:
        row: a raw row.
        where: file and line of the row, for messages.
        name: our field name.
        renamed: our field name → the column's name in this data.

    Raises:
        InputError: the column is missing or has no value.
    """
    column = renamed.get(name, name)
    value = row.get(column)
    if value is not None:
        return value
    if column in row:
        raise no_value(where, name, column)
    columns = [str(present) for present in row]
    near = get_close_matches(column, columns[:_COMPARED], 1)
    hints = [f"did you mean '{near[0]}'?"] if near else []
    if not near and format_of(where.rpartition(":")[0]) == ".csv":
        hints.append("is the first line one with the names of the columns?")
    if columns and not near and name not in renamed:
        hints.append(f"to read another column, set columns: {{{name}: NAME}} in the spec")
    hint = "".join(f"; {hint}" for hint in hints).replace("?; ", "? If so, ")
    raise InputError(
        f"{where}: field '{column}' is missing; the row has {listed(columns) or 'none'}{hint}"
    )


def no_value(where: str, name: str, column: str) -> InputError:
    """The error for a missing value of our field ``name``, which is in ``column``."""
    hint = ""
    if name == "label":
        hint = '; no_label: [""] in the data set of the spec leaves such rows out'
    return InputError(f"{where}: field '{column}' has no value{hint}")


def note_unread(row: Mapping[str, Any], read: Collection[str], notes: Counter[str]) -> None:
    """Count a row with columns that nothing reads, by the names of these columns."""
    unread = [str(column) for column in row if column not in read]
    if unread:
        count_note(notes, COLUMNS_NOT_READ, unread)


def wrong_type(where: str, column: str, value: object, expected: str) -> InputError:
    """The error for a value whose type is not the ``expected`` one."""
    return InputError(f"{where}: field '{column}' is {shortened(value)}; expected {expected}")


def shortened(value: object) -> str:
    """A value as messages show it, with at most 40 characters."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
