"""Named fields of a raw row, under the names the researcher's files give them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from w2s_ray.errors import InputError


class Unusable(NamedTuple):
    """A row that is sound but cannot be learned from; counted, never dropped in silence."""

    reason: str


def required(row: Mapping[str, Any], where: str, name: str, renamed: Mapping[str, str]) -> Any:
    """The value of our field ``name``.

    Args:
        where: the row's place, for the message.
        renamed: our name → the column's name in this data.

    Raises:
        InputError: the column is absent or holds no value.
    """
    column = renamed.get(name, name)
    value = row.get(column)
    if value is not None:
        return value
    if column in row:
        raise InputError(f"{where}: field '{column}' has no value")
    columns = [str(known) for known in row]
    near = get_close_matches(column, columns, 1)
    advice = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(
        f"{where}: field '{column}' is missing; the row has {', '.join(columns) or 'none'}{advice}"
    )


def wrong_type(where: str, column: str, value: object, expected: str) -> InputError:
    """The error for a value of another type than ``expected`` (words)."""
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    return InputError(f"{where}: field '{column}' is {shown}; expected {expected}")
