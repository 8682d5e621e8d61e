"""Rows of foreign data: how many columns they have, how long names, labels and texts are."""

from collections import Counter
from collections.abc import Collection, Iterable

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit

_COLUMNS, _NAME = "data.columns", "column_name.characters"
_LABEL, _TEXT = "label.characters", "text.characters"
_SHOWN = 50
"""Most names of a list that a message shows."""


def check_columns(names: Collection[object], where: str) -> None:
    """Refuses a row with too many columns, or too long a name of one.

    Raises:
        InputError: its line begins with ``where``.
    """
    if len(names) > limit(_COLUMNS):
        raise InputError(f"{where}: {exceeded(_COLUMNS, len(names))}")
    longest = limit(_NAME)
    for name in names:
        if isinstance(name, str) and len(name) > longest:
            raise InputError(f"{where}: column name '{name[:40]}...': {exceeded(_NAME, len(name))}")


def check_texts(texts: Iterable[str], where: str) -> None:
    """Refuses a text that is longer than any that a model reads.

    Raises:
        InputError: its line begins with ``where``.
    """
    longest = limit(_TEXT)
    for text in texts:
        if len(text) > longest:
            raise InputError(
                f"{where}: text {text[:40]!r}...: {exceeded(_TEXT, len(text))}; shorten it"
            )


def check_label(label: str, where: str) -> None:
    """Refuses a class name that is too long to be one; arguments and errors as ``check_texts``."""
    if len(label) > limit(_LABEL):
        raise InputError(f"{where}: label {label[:40]!r}...: {exceeded(_LABEL, len(label))}")


def listed(names: Collection[object]) -> str:
    """Names for a message, of many the first ones and how many more there are."""
    shown = [str(name) or "(no name)" for name in list(names)[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def count_note(notes: Counter[str], kind: str, names: Collection[object]) -> None:
    """Counts a row with a peculiarity that names what is foreign, such as columns.

    Args:
        notes: takes the count. Where names differ from row to row, the first ``data.notes`` kinds
            are counted apart, the others together.
        kind: what is said of the names.
        names: of columns or fields.
    """
    note = f"{kind}: {listed(names)}"
    if note not in notes and len(notes) >= limit("data.notes"):
        note = f"{kind}: others"
    notes[note] += 1
