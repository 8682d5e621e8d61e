"""The fields of a raw preference pair: their values in one of a few forms, and their columns.

The three values are texts or lists of messages. The prompt may also be in another column: in the
data of ShareGPT, ``conversations`` has the turns before the answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from w2s_ray.data.columns import Unusable, note_unread, required, wrong_type
from w2s_ray.data.conversations import (
    AS_TEXT,
    MAY_OPEN,
    ROLES,
    Turn,
    messages_in,
    note_fields,
    read_turns,
)
from w2s_ray.data.scores import SCORES, note_scores
from w2s_ray.data.transcripts import is_transcript
from w2s_ray.errors import InputError

T = TypeVar("T")

CONVERSATIONS = "conversations"
"""The prompt of ShareGPT's rows."""

REPEATED = "prompt repeated in the answers; removed once"
NO_PROMPT = "prompt has no value; the common beginning of the answers is used"
ONE_AS_TEXT = "one of the two answers is a list of messages written as text; kept as text"

_TURNS = "a text or a list of {role, content}"


class Fields(NamedTuple):
    """The three fields of a row: their values, or the names of their columns."""

    chosen: Any
    rejected: Any
    prompt: Any


class Turns(NamedTuple):
    """The turns of the three fields; no turn is both in the prompt and in the answers."""

    chosen: list[Turn]
    rejected: list[Turn]
    prompt: list[Turn]


class RawPair(NamedTuple):
    """A row's fields.

    Attributes:
        values: texts, or lists of messages.
        columns: in which each value is.
        is_hh: whether both answers are read as transcripts of HH-RLHF.
    """

    values: Fields
    columns: Fields
    is_hh: bool


def read_fields(
    row: Mapping[str, Any],
    where: str,
    renamed: Mapping[str, str],
    form: str,
    notes: Counter[str],
) -> RawPair:
    """Read the fields of a pair; the arguments are those of ``preference.read_pair``.

    Raises:
        InputError: a field is missing or has the wrong type, or the prompt may be in a column that
            nothing reads.
    """
    values, columns = _fields(row, where, renamed)
    are_texts = isinstance(values.chosen, str) and isinstance(values.rejected, str)
    is_hh = are_texts and (form == "hh" or (form == "auto" and all(map(is_transcript, values[:2]))))
    given = columns.prompt
    if not is_hh:
        values = _checked(values, where, columns, notes)
        if not values.prompt and len(row) > 2 and "prompt" not in renamed:
            values, columns = _with_turns_before(row, where, values, columns, notes)
    if len(row) > 2 + (columns.prompt in row):
        empty = "prompt" if columns.prompt != given or given == CONVERSATIONS else given
        note_unread(row, (*columns, empty, *SCORES), notes)
        note_scores(row, notes)
    if values.prompt is None and columns.prompt in row:
        notes[NO_PROMPT] += 1
    return RawPair(values, columns, is_hh)


def read_all_turns(
    values: Fields, where: str, columns: Fields, notes: Counter[str]
) -> Turns | Unusable:
    """The turns of the three fields, where the answers are lists of messages.

    A text as prompt is what the user says. Beside whole conversations, as in many data sets of the
    Hub, it repeats a part of them and is no turn of its own.
    """
    unread: set[str] = set()
    turns: list[list[Turn]] = []
    for name, value in zip(columns, values, strict=True):
        if isinstance(value, list):
            parsed = read_turns(value, where, name, unread)
            if isinstance(parsed, Unusable):
                return parsed
            turns.append(parsed)
        else:
            turns.append([Turn("user", value)] if value else [])
    note_fields(unread, notes)
    chosen, rejected, prompt = turns
    if isinstance(values.prompt, str) and chosen and chosen[0].role != "assistant":
        prompt = []
    repeated = _repeated_turns(prompt, chosen, rejected)
    if repeated:
        notes[REPEATED] += 1
    return Turns(chosen[repeated:], rejected[repeated:], prompt)


def common_prefix(first: Sequence[T], second: Sequence[T]) -> int:
    """Length of the longest common prefix, by bisection: comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _fields(
    row: Mapping[str, Any], where: str, renamed: Mapping[str, str]
) -> tuple[Fields, Fields]:
    """Values and columns of the three fields."""
    chosen = required(row, where, "chosen", renamed)
    rejected = required(row, where, "rejected", renamed)
    column = renamed.get("prompt", "prompt")
    prompt = required(row, where, "prompt", renamed) if "prompt" in renamed else row.get("prompt")
    if prompt is None and isinstance(chosen, dict) and CONVERSATIONS in row:
        column, prompt = CONVERSATIONS, row[CONVERSATIONS]
    columns = Fields(renamed.get("chosen", "chosen"), renamed.get("rejected", "rejected"), column)
    return Fields(chosen, rejected, prompt), columns


def _checked(values: Fields, where: str, columns: Fields, notes: Counter[str]) -> Fields:
    """The values as texts or as lists of messages, all three alike except for a text as prompt."""
    if not all(map(_needs_no_parsing, values)):
        values = _parsed(values, where, columns, notes)
    is_text = isinstance(values.chosen, str)
    if isinstance(values.rejected, str) != is_text:
        expected = f"a {'text' if is_text else 'list'}, like chosen"
        raise wrong_type(where, columns.rejected, values.rejected, expected)
    if is_text and isinstance(values.prompt, list):
        raise wrong_type(where, columns.prompt, values.prompt, "a text, like chosen")
    return values


def _with_turns_before(
    row: Mapping[str, Any], where: str, values: Fields, columns: Fields, notes: Counter[str]
) -> tuple[Fields, Fields]:
    """Values and columns with the prompt from a column of turns, where answers need turns before.

    Answers need them that are texts, or lists of messages that begin with the assistant.

    Raises:
        InputError: it is not clear which turns come before the answers.
    """
    answers = values[:2]
    if isinstance(values.chosen, list):
        begun = [_opens_with_assistant(messages) for messages in answers if messages]
        if not any(begun):
            return values, columns
    else:
        begun = [True]
    turns = _columns_of_turns(row, where, columns)
    if not turns:
        return values, columns
    column = CONVERSATIONS if CONVERSATIONS in turns else next(iter(turns))
    to_choose = "; to read a column as the prompt, set columns: {prompt: NAME} in the spec"
    if not all(begun):
        raise InputError(
            f"{where}: one of the answers begins with a turn of the assistant and the other does "
            f"not, and field '{column}' has turns; expected both answers after it, or none"
        )
    if column != CONVERSATIONS and any(value != turns[column] for value in turns.values()):
        raise InputError(
            f"{where}: fields {', '.join(turns)} have turns and there is no prompt{to_choose}"
        )
    if _role_of(turns[column][-1]) == "assistant":
        raise InputError(
            f"{where}: field '{column}' ends with a turn of the assistant; expected the turns "
            f"before the answers{to_choose}"
        )
    if isinstance(row[column], str):
        notes[AS_TEXT] += 1
    if column != CONVERSATIONS:
        notes[f"prompt read from the column: {column}"] += 1
    chosen, rejected = (
        [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
        for answer in answers
    )
    return Fields(chosen, rejected, turns[column]), columns._replace(prompt=column)


def _columns_of_turns(row: Mapping[str, Any], where: str, columns: Fields) -> dict[str, list[Any]]:
    """The columns, other than the three, with a list of messages; also one written as text."""
    turns = {}
    for name, value in row.items():
        if name in columns or not isinstance(value, list | str):
            continue
        messages = messages_in(value, where, name) if isinstance(value, str) else value
        if messages and all(isinstance(m, dict) and ("role" in m or "from" in m) for m in messages):
            turns[name] = messages
    return turns


def _opens_with_assistant(messages: list[Any]) -> bool:
    return _role_of(messages[0]) == "assistant"


def _role_of(message: object) -> str | None:
    """Our name of a message's role; None if it is no message or the role is unknown."""
    if not isinstance(message, dict):
        return None
    role = message.get("role") or message.get("from")
    return ROLES.get(role.strip().lower()) if isinstance(role, str) else None


def _parsed(values: Fields, where: str, columns: Fields, notes: Counter[str]) -> Fields:
    """The values with single messages, and messages written as text, as lists."""
    for name, value in zip(columns, values, strict=True):
        if not isinstance(value, str | list | dict | None):
            raise wrong_type(where, name, value, _TURNS)
    chosen, rejected, prompt = ([value] if isinstance(value, dict) else value for value in values)
    written = [
        messages_in(value, where, name) if isinstance(value, str) else None
        for name, value in zip(columns, (chosen, rejected, prompt), strict=True)
    ]
    if written[0] is not None and written[1] is not None:
        chosen, rejected = written[:2]
    elif written[0] is not None or written[1] is not None:
        notes[ONE_AS_TEXT] += 1
    if written[2] is not None:
        prompt = written[2]
    if chosen is written[0] or (prompt is not None and prompt is written[2]):
        notes[AS_TEXT] += 1
    return Fields(chosen, rejected, prompt)


def _needs_no_parsing(value: object) -> bool:
    """Whether a value is a list, null or a text that cannot be a list of messages."""
    if isinstance(value, str):
        return value[:1] not in MAY_OPEN
    return value is None or isinstance(value, list)


def _repeated_turns(prompt: list[Turn], chosen: list[Turn], rejected: list[Turn]) -> int:
    """How many of the prompt's last turns are the first ones of both answers."""
    most = min(len(prompt), common_prefix(chosen, rejected))
    return next((n for n in range(most, 0, -1) if prompt[-n:] == chosen[:n]), 0)
