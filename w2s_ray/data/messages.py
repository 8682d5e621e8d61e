"""Rows as messages, for chat templates: lists of {role, content}, one conversation for each text.

Messages are kept, with our names of their roles; transcripts are divided at their turns; of plain
texts an explicit prompt is the user's message and the answer the assistant's. A text without a
prompt is one message of the user.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from w2s_ray.data.classification import Text
from w2s_ray.data.columns import Unusable
from w2s_ray.data.pair_fields import read_all_turns, read_fields
from w2s_ray.data.preference import Pair
from w2s_ray.data.transcripts import begins_as_transcript, begins_with_mark, roles_and_texts

Conversation = list[dict[str, str]]

MESSAGES = pa.list_(pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})))
"""Type of the column: m conversations a row."""


def conversations_of(
    parsed: Pair | Text,
    row: Mapping[str, Any],
    where: str,
    renamed: Mapping[str, str],
    form: str = "auto",
) -> list[Conversation]:
    """The conversation of each text of a row; of a pair the preferred answer's first.

    Args:
        parsed: what was read of the row.
        row: the raw row.
        where: file and line of the row.
        renamed: our field name → the column's name in this data.
        form: as for ``read_pair``.
    """
    if isinstance(parsed, Text):
        return [[_message("user", parsed.text)]]
    values, columns, is_hh = read_fields(row, where, renamed, form, Counter())
    answers = (parsed.chosen, parsed.rejected)
    if isinstance(values.chosen, list):
        turns = read_all_turns(values, where, columns, Counter())
        assert not isinstance(turns, Unusable), "the row gave a pair"
        both = (turns.chosen, turns.rejected)
        return [[_message(*turn) for turn in turns.prompt + answer] for answer in both]
    if all(begins_as_transcript(parsed.prompt + answer) for answer in answers):
        return [_of_transcript(parsed.prompt, answer) for answer in answers]
    if values.prompt and not is_hh:
        return [[_message("user", parsed.prompt), _message("assistant", a)] for a in answers]
    return [[_message("user", parsed.prompt + answer)] for answer in answers]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _of_transcript(prompt: str, answer: str) -> Conversation:
    """The turns of a transcript; an answer after a complete turn of the user is a turn itself."""
    if begins_as_transcript(prompt) and not begins_with_mark(answer):
        before = roles_and_texts(prompt)
        if before[-1][0] == "user" and before[-1][1]:
            return [_message(*turn) for turn in (*before, ("assistant", answer.strip()))]
    return [_message(*turn) for turn in roles_and_texts(prompt + answer)]
