"""Names of classes that are none, or that look like another one."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal

from w2s_ray.errors import InputError

NO_LABEL = "no label"
_MISSING = """
    nan NaN NAN -nan -NaN null NULL Null None <NA> NA N/A n/a #N/A #NA unlabeled unlabelled
"""
MISSING = frozenset(_MISSING.split())
"""How libraries write a missing value into a text file (the defaults of pandas), and the word."""
NUMBERS = frozenset({"-1", "-100"})
"""What data sets and libraries put where there is no class index."""


def is_blank(label: object) -> bool:
    """Whether a label is missing: null, NaN, or white space, as in an empty cell of CSV."""
    if isinstance(label, float | Decimal):
        return label != label
    return label is None or (isinstance(label, str) and not label.strip())


def stand_ins(
    first_rows: Mapping[str, str],
    labels_by_origin: Iterable[Set[str]],
    declared: tuple[str, ...] | None,
) -> list[str]:
    """The labels that stand for "no label", sorted.

    A negative number among class indices does so where some origin has no other label, as the test
    split of a benchmark whose labels are secret, or where the others number three classes or more.

    Args:
        first_rows: each label → file and line of the first row that has it.
        labels_by_origin: the labels of each source or given split.
        declared: what the spec says they are; None if it says nothing.

    Raises:
        InputError: the spec says nothing, and a label may or may not be a class.
    """
    if declared is not None:
        return sorted(first_rows.keys() & set(declared))
    if missing := sorted(first_rows.keys() & MISSING):
        raise _unclear(missing[0], first_rows, "is how a missing value is often written")
    suspects = first_rows.keys() & NUMBERS
    others = first_rows.keys() - suspects
    if not suspects or len(others) < 2 or not all(map(str.isdecimal, others)):
        return []
    if any(labels and labels <= suspects for labels in labels_by_origin):
        return sorted(suspects)
    numbers = sorted(map(int, others))
    consecutive = numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[-1] + 1))
    if "-1" not in suspects or (consecutive and len(numbers) > 2):
        return sorted(suspects)
    listed = ", ".join(map(str, numbers[:5]))
    raise _unclear("-1", first_rows, f"beside {listed} may be a class or stand for no label")


def _unclear(label: str, first_rows: Mapping[str, str], why: str) -> InputError:
    return InputError(
        f"{first_rows[label]}: label '{label}' {why}; expected the data set's no_label in the "
        f"spec: [{_quoted(label)}] to leave such rows out, [] if it is a class"
    )


def _quoted(label: str) -> str:
    return label if re.fullmatch(r"-?\d+", label) else f'"{label}"'


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Names that a reader may take for one: they differ in case, white space, zeros or hyphens."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_appearance(name)].append(name)
    return [group for group in alike.values() if len(group) > 1]


def _appearance(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = "".join(char if char.isprintable() else " " for char in folded)
    if re.fullmatch(r"\s*-?\d+\s*", words):
        return str(int(words))
    return " ".join(re.split(r"[\s_\-]+", words)).strip()


def visible(name: str) -> str:
    """A name for people; in quotation marks where it would be hard to see."""
    plain = name.isprintable() and name == name.strip() and "," not in name and name
    return name if plain else repr(name)
