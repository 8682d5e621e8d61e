"""Rows as messages, for chat templates: lists of {role, content}, one conversation for each text.

Messages are kept as they are, transcripts are divided at their turns, and of plain texts an
explicit prompt is the user's message and the answer the assistant's. A text without a prompt is one
message of the user.
"""

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from w2s_ray.data.classification import Text
from w2s_ray.data.preference import ASSISTANT, HUMAN, Pair, conversations_in

Conversation = list[dict[str, str]]

MESSAGES = pa.list_(pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})))
"""Type of the column: m conversations a row."""

_ROLES = {HUMAN: "user", ASSISTANT: "assistant"}


def conversations_of(
    parsed: Pair | Text, row: Mapping[str, Any], where: str, renamed: Mapping[str, str]
) -> list[Conversation]:
    """The conversation of each text of a row; of a pair the preferred answer's first.

    Args:
        parsed: what was read of the row.
        row: the raw row.
        where: file and line of the row.
        renamed: our field name → the column's name in this data.
    """
    if isinstance(parsed, Text):
        return [[_message("user", parsed.text)]]
    answers = (parsed.chosen, parsed.rejected)
    found = conversations_in(row, where, renamed)
    if found is not None:
        return [[_message(turn.role, turn.content) for turn in turns] for turns in found]
    if parsed.prompt.startswith(HUMAN) and ASSISTANT in parsed.prompt:
        return [_turns(parsed.prompt + answer) for answer in answers]
    if row.get(renamed.get("prompt", "prompt")):
        return [[_message("user", parsed.prompt), _message("assistant", a)] for a in answers]
    return [[_message("user", parsed.prompt + answer)] for answer in answers]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _turns(transcript: str) -> Conversation:
    """The turns of a transcript, without the blanks around each."""
    parts = re.split(f"({HUMAN}|{ASSISTANT})", transcript)
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return [_message(_ROLES[marker], content.strip()) for marker, content in turns]
