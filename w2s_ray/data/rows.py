"""Usable rows of a data set, and counts of what else was read."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from w2s_ray.data import contexts
from w2s_ray.data.class_names import NO_LABEL, is_blank
from w2s_ray.data.classification import Text, read_text
from w2s_ray.data.columns import COLUMNS_NOT_READ, Unusable, required
from w2s_ray.data.contexts import Context, digest
from w2s_ray.data.counting import counted
from w2s_ray.data.formats import RawRow
from w2s_ray.data.messages import Conversation, conversations_of
from w2s_ray.data.preference import Pair, read_pair
from w2s_ray.data.sources import GENERATED
from w2s_ray.foreign.rows import check_columns, check_label, check_texts

if TYPE_CHECKING:
    from w2s_ray.spec.schema import DataSpec

FIELDS = ("prompt", "chosen", "rejected", "text", "label")
"""Our names of the fields that the readers of rows know."""


@dataclass(frozen=True, slots=True)
class Row:
    """A usable row.

    Attributes:
        content: hash of all its texts, 16 hex digits.
        context: what its answers cannot change.
        prompt: empty if there is none.
        answers: chosen and rejected, or the one text.
        label: name of the class; empty for preference pairs.
        phenomenon: for generated rows.
        messages: the conversation of each answer, where a chat template will read it.
    """

    content: str
    context: Context
    prompt: str
    answers: tuple[str, ...]
    label: str = ""
    phenomenon: str | None = None
    messages: list[Conversation] | None = None


@dataclass
class Origin:
    """The rows of one origin, which is a given split or the one source.

    Attributes:
        rows: the usable ones.
        read: how many there are in all.
        unusable: how many are unusable, by reason.
        notes: how many of the rows have a peculiarity that a reader must know, by peculiarity.
        example: the first usable one as it was read; empty if there is none.
    """

    rows: list[Row] = field(default_factory=list)
    read: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    example: RawRow = field(default_factory=dict)

    def summary(self) -> str:
        """The counts as text, for messages, with reasons and columns that were not read."""
        reasons = "".join(f", {count} {reason}" for reason, count in self.unusable.most_common())
        unread = "".join(
            f" ({note}; {counted(count, 'row')})"
            for note, count in self.notes.most_common()
            if note.startswith(COLUMNS_NOT_READ)
        )
        are = "row is" if self.read == 1 else "rows are"
        return f"{len(self.rows)} of {self.read} {are} usable{reasons}{unread}"

    def remove_unlabelled(self, stand_ins: Iterable[str]) -> None:
        """Counts the rows with one of these labels as unusable."""
        for label in stand_ins:
            kept = [row for row in self.rows if row.label != label]
            if len(kept) < len(self.rows):
                self.unusable[f"{NO_LABEL} ({label})"] += len(self.rows) - len(kept)
                self.rows = kept


def read_origin(
    located: Iterable[tuple[str, RawRow]],
    data: "DataSpec",
    labels: dict[str, str],
    messages: bool = False,
) -> Origin:
    """Read one origin; add each new class label to ``labels`` with the file and line it is in.

    Args:
        messages: keep the conversations, for a chat template.

    Raises:
        InputError: a row does not have the format in the spec.
    """
    renamed = data.columns.model_dump(exclude_none=True)
    group_column = renamed.pop("group", None)
    also_read = group_column in {*renamed.values(), *FIELDS}
    origin = Origin()
    generated = (data.source or "").startswith(GENERATED)
    notes = Counter[str]() if generated else origin.notes
    columns: Set[object] = set()
    for where, raw in located:
        origin.read += 1
        if raw.keys() != columns:
            columns = raw.keys()
            check_columns(columns, where)
        if _has_no_label(raw, data):
            origin.unusable[NO_LABEL] += 1
            continue
        group = None
        if group_column is not None:
            group = required(raw, where, "group", {"group": group_column})
            if not also_read:
                raw = {name: value for name, value in raw.items() if name != group_column}
        parsed: Pair | Text | Unusable
        if data.kind == "classification":
            parsed = read_text(raw, where, renamed, notes)
        else:
            parsed = read_pair(raw, where, renamed, data.format, notes)
        if isinstance(parsed, Unusable):
            origin.unusable[parsed.reason] += 1
        elif not _encodes(parsed):
            origin.unusable["not valid Unicode"] += 1
        else:
            _check_sizes(parsed, where)
            if isinstance(parsed, Text):
                labels.setdefault(parsed.label, where)
            row = _row(parsed, raw, data, group)
            if messages:
                given = conversations_of(parsed, raw, where, renamed, data.format)
                row = replace(row, messages=given)
            origin.example = origin.example or raw
            origin.rows.append(row)
    return origin


def _row(parsed: Pair | Text, raw: RawRow, data: "DataSpec", group: object) -> Row:
    generated = (data.source or "").startswith(GENERATED)
    given = contexts.of_group(group) if group is not None else None
    if isinstance(parsed, Text):
        context = given or contexts.of_text(parsed.text)
        return Row(digest(*parsed), context, "", (parsed.text,), parsed.label)
    if generated:
        context = contexts.of_generated(parsed)
    else:
        prompt = raw.get(data.columns.prompt or "prompt")
        context = given or contexts.of_pair(parsed, prompt if isinstance(prompt, str) else None)
    answers = (parsed.chosen, parsed.rejected)
    phenomenon = raw["phenomenon"] if generated else None
    content = digest(parsed.prompt, *answers)
    return Row(content, context, parsed.prompt, answers, phenomenon=phenomenon)


def _has_no_label(raw: Mapping[str, Any], data: "DataSpec") -> bool:
    """Whether the label is missing or blank and the spec says that this means no label."""
    if data.kind != "classification" or not data.no_label or "" not in data.no_label:
        return False
    return is_blank(raw.get(data.columns.label or "label", "missing"))


def _check_sizes(parsed: Pair | Text, where: str) -> None:
    """Refuses a text or label that is longer than the limit on such."""
    if isinstance(parsed, Text):
        check_texts((parsed.text,), where)
        check_label(parsed.label, where)
    else:
        check_texts(parsed, where)


def _encodes(texts: Iterable[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can express
        return False
    return True
