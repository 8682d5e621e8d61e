"""Why too few rows are usable, and what in the spec may help."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from w2s_ray.data.conversations import messages_in
from w2s_ray.data.counting import counted
from w2s_ray.data.pair_fields import CONVERSATIONS
from w2s_ray.data.preference import NO_COMMON_PROMPT
from w2s_ray.data.rows import Origin, Row
from w2s_ray.errors import InputError

if TYPE_CHECKING:
    from w2s_ray.spec.schema import DataSpec

_PROMPTS = frozenset(
    {
        *("prompt", "question", "query", "instruction", "input", "context"),
        *("conversation", "message", "dialog", "dialogue"),
    }
)
"""Nouns, in singular, with which the names of columns that hold prompts end."""


def too_few(
    origin: Origin,
    groups: Mapping[str, Sequence[Row]],
    sizes: Mapping[str, int | None],
    data: "DataSpec",
) -> InputError:
    """The error for one source whose rows cannot fill the splits.

    Args:
        groups: rows that belong together, by the name of their group.
        sizes: requested rows of each split.
    """
    kind = "prompt" if data.kind == "preference" else "text"
    texts = len({row.prompt or row.answers for row in origin.rows})
    with_texts = counted(texts, f"different {kind}")
    if len(groups) < texts:
        largest = counted(max(map(len, groups.values()), default=0), "row")
        number = counted(len(groups), "group")
        with_texts += f" in {number} of rows that belong together, the largest of {largest}"
    requested = ", ".join(f"{name} {size}" for name, size in sizes.items())
    enough = len(origin.rows) >= sum(size or 0 for size in sizes.values())
    return InputError(
        f"{data.source}: too few rows: {origin.summary()}, with {with_texts}; sizes require "
        f"{requested}, and no {kind} may be in two splits"
        f"{_about_columns(origin, data, enough)}{_about_format(origin, data)}"
    )


def none_usable(files: Sequence[str], origin: Origin, data: "DataSpec") -> InputError:
    """The error for a given split, of these files, without a usable row."""
    return InputError(f"{', '.join(files)}: {origin.summary()}{_about_format(origin, data)}")


def _about_format(origin: Origin, data: "DataSpec") -> str:
    if data.format != "hh" or not origin.unusable[NO_COMMON_PROMPT]:
        return ""
    return (
        "; format: hh reads every text as a transcript (Human: … Assistant: …), format: auto also "
        "reads plain texts"
    )


def _about_columns(origin: Origin, data: "DataSpec", enough: bool) -> str:
    """Which column may keep apart rows that are one group.

    Args:
        enough: whether there are as many rows as the sizes require.
    """
    guessed = sum(row.context.is_guess for row in origin.rows)
    if not guessed and not enough:
        return ""
    hint = ""
    if guessed:
        have = "row has" if guessed == 1 else "rows have"
        hint = f"; {guessed:,} {have} no prompt, and groups are a guess from how the texts begin"
    if column := next(_prompts(origin, data), None):
        return (
            f"{hint}; column '{column}' is not read and may be the prompt: columns: {{prompt: "
            f"{column}}} in the spec reads it; or name a column with the group of each row "
            "(columns.group)"
        )
    if guessed:
        return (
            f"{hint}: name a column with the prompt (columns.prompt) or the group (columns.group)"
        )
    return "; a column with the group of each row can be named (columns.group)"


def _prompts(origin: Origin, data: "DataSpec") -> Iterator[str]:
    """Columns that are not read, in rows without a prompt, whose values may be prompts."""
    row, columns = origin.example, data.columns
    chosen = row.get(columns.chosen or "chosen")
    if data.kind != "preference" or row.get(columns.prompt or "prompt") is not None:
        return
    if isinstance(chosen, dict) and CONVERSATIONS in row:  # which is read
        return
    read = {columns.chosen or "chosen", columns.rejected or "rejected", columns.group}
    for column, value in row.items():
        if column in read:
            continue
        if _is_messages(value):
            if _is_messages(chosen):  # a prompt of messages needs answers of messages
                yield column
        elif isinstance(value, str) and _names_a_prompt(column):
            yield column


def _names_a_prompt(column: str) -> bool:
    last = re.split(r"[\W_]+", column.strip().casefold())[-1]
    return last in _PROMPTS or last.removesuffix("s") in _PROMPTS


def _is_messages(value: object) -> bool:
    """Whether a value is a message or a list of messages, also written as text."""
    if isinstance(value, str):
        with suppress(InputError):
            return messages_in(value, "", "") is not None
        return False
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and not first.keys().isdisjoint(("content", "value"))
