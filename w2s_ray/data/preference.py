"""Parsing of raw preference rows in any supported format into (prompt, chosen, rejected).

The formats are TRL's (an explicit prompt, or one that is implicit in the common beginning of chosen
and rejected; each either as texts or as conversations), ShareGPT's turns, and the transcripts of
HH-RLHF. Conversations are rendered as text in the style of HH-RLHF, not with a model's chat
template: weak and strong models may have different tokenizers and templates, and text is the
interface between them. docs/data.md describes all of it for users.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from w2s_ray.data.columns import Unusable, note_unread, required, wrong_type
from w2s_ray.data.conversations import (
    AS_TEXT,
    MAY_OPEN,
    SPEAKERS,
    Turn,
    messages_in,
    note_fields,
    read_turns,
    transcript,
)
from w2s_ray.data.scores import SCORES, note_scores

T = TypeVar("T")

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_STRIPPED = HUMAN.lstrip()
CONVERSATIONS = "conversations"
"""The prompt of ShareGPT's rows, whose ``chosen`` and ``rejected`` are one message each."""

REPEATED = "prompt repeated in the answers; removed once"
REPEATED_IN_ONE = "prompt repeated in one of the two answers; kept"
NOT_IN_ANSWERS = "prompt not read: the answers contain another conversation"
NO_PROMPT = "prompt has no value; the common beginning of the answers is used"
NO_COMMON_PROMPT = "no common prompt"
ONE_AS_TEXT = "one of the two answers is a list of messages written as text; kept as text"

_TURNS = "a text or a list of {role, content}"
_BY_CHANCE = 20
"""An answer may begin with a prompt of at most so many characters by chance, as in greetings."""


class Pair(NamedTuple):
    """Three texts: ``prompt + chosen`` was preferred to ``prompt + rejected``."""

    prompt: str
    chosen: str
    rejected: str


Message = dict[str, str]  # role and content


class _Fields(NamedTuple):
    """The three fields of a row: their values, or the names of their columns."""

    chosen: Any
    rejected: Any
    prompt: Any


def read_pair(
    row: Mapping[str, Any],
    where: str,
    renamed: Mapping[str, str],
    form: str = "auto",
    notes: Counter[str] | None = None,
) -> Pair | Unusable:
    """Parse one preference pair.

    Args:
        row: a raw row with the fields chosen, rejected and optionally prompt.
        where: file and line of the row, for messages.
        renamed: our field name → the column's name in this data.
        form: ``trl``, ``hh``, or ``auto``: hh where both texts are transcripts.
        notes: counts what a reader must know of rows, such as columns that are not read.

    Raises:
        InputError: a field is missing or has the wrong type.
    """
    notes = Counter() if notes is None else notes
    values, columns = _fields(row, where, renamed)
    if len(row) > 2 + (columns.prompt in row):
        note_unread(row, (*columns, *SCORES), notes)
        note_scores(row, notes)
    if values.prompt is None and columns.prompt in row:
        notes[NO_PROMPT] += 1

    are_texts = isinstance(values.chosen, str) and isinstance(values.rejected, str)
    is_hh = are_texts and (
        form == "hh" or (form == "auto" and all(map(_is_transcript, values[:2])))
    )
    if not is_hh:
        values = _checked(values, where, columns, notes)
    if is_hh:
        pair = _of_transcripts(values.chosen, values.rejected)
        _note_prompt(values.prompt, pair, notes)
    elif not isinstance(values.chosen, str):
        if form == "hh":
            raise wrong_type(where, columns.chosen, values.chosen, "a transcript")
        pair = _of_messages(values, where, columns, notes)
    elif values.prompt:
        given = Pair(values.prompt, values.chosen, values.rejected)
        pair = _of_texts(*_without_repeated(given, notes))
    elif values.prompt is not None:
        pair = _of_texts("", values.chosen, values.rejected)
    else:
        pair = _split_texts(values.chosen, values.rejected)
    return pair


def conversations_of(
    row: Mapping[str, Any], where: str, renamed: Mapping[str, str], pair: Pair
) -> list[list[Message]]:
    """The conversations that end in the preferred and in the other answer, for a chat template.

    Messages are kept, with our names of their roles; transcripts are divided at their turns; of
    plain texts an explicit prompt is the user's message and the answer the assistant's. A text
    without a prompt is one message of the user.

    Args:
        row: as for ``read_pair``, likewise ``where`` and ``renamed``.
        where: file and line of the row.
        renamed: our field name → the column's name in this data.
        pair: what ``read_pair`` made of the row.
    """
    values, columns = _fields(row, where, renamed)
    if not _begins_as_transcript(values.chosen):
        values = _checked(values, where, columns, Counter())
    if isinstance(values.chosen, list):
        turns = _turns(values, where, columns, Counter())
        assert not isinstance(turns, Unusable), "the row gave a pair"
        return [[turn._asdict() for turn in turns.prompt + answer] for answer in turns[:2]]
    if _begins_as_transcript(pair.prompt):
        return [_messages_of(pair.prompt + answer) for answer in pair[1:]]
    if values.prompt:
        user = one_message(pair.prompt)
        return [[*user, {"role": "assistant", "content": answer}] for answer in pair[1:]]
    return [one_message(pair.prompt + answer) for answer in pair[1:]]


def one_message(text: str) -> list[Message]:
    """A text by itself as a conversation."""
    return [{"role": "user", "content": text}]


def _messages_of(text: str) -> list[Message]:
    """The turns of a transcript, without the white space around each."""
    text = text if text.startswith(HUMAN) else f"\n\n{text}"
    parts = re.split(f"({HUMAN}|{ASSISTANT})", text)
    roles = {HUMAN: "user", ASSISTANT: "assistant"}
    return [
        {"role": roles[mark], "content": content.strip()}
        for mark, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _fields(
    row: Mapping[str, Any], where: str, renamed: Mapping[str, str]
) -> tuple[_Fields, _Fields]:
    """Values and columns of the three fields."""
    chosen = required(row, where, "chosen", renamed)
    rejected = required(row, where, "rejected", renamed)
    column = renamed.get("prompt", "prompt")
    prompt = required(row, where, "prompt", renamed) if "prompt" in renamed else row.get("prompt")
    if prompt is None and isinstance(chosen, dict) and CONVERSATIONS in row:
        column, prompt = CONVERSATIONS, row[CONVERSATIONS]
    columns = _Fields(renamed.get("chosen", "chosen"), renamed.get("rejected", "rejected"), column)
    return _Fields(chosen, rejected, prompt), columns


def _checked(values: _Fields, where: str, columns: _Fields, notes: Counter[str]) -> _Fields:
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


def _parsed(values: _Fields, where: str, columns: _Fields, notes: Counter[str]) -> _Fields:
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
    return _Fields(chosen, rejected, prompt)


def _needs_no_parsing(value: object) -> bool:
    """Whether a value is a list, null or a text that cannot be a list of messages."""
    if isinstance(value, str):
        return value[:1] not in MAY_OPEN
    return value is None or isinstance(value, list)


def conversations_in(
    row: Mapping[str, Any], where: str, renamed: Mapping[str, str]
) -> list[list[Turn]] | None:
    """The whole conversations that end in chosen and in rejected; None for a row of texts."""
    values, columns = _fields(row, where, renamed)
    values = _checked(values, where, columns, Counter())
    if isinstance(values.chosen, str):
        return None
    turns = _turns(values, where, columns, Counter())
    if isinstance(turns, Unusable):
        return None
    return [turns.prompt + turns.chosen, turns.prompt + turns.rejected]


def _of_texts(prompt: str, chosen: str, rejected: str) -> Pair | Unusable:
    if not chosen or not rejected:
        return Unusable("empty answer")
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    return Pair(prompt, chosen, rejected)


def _without_repeated(pair: Pair, notes: Counter[str]) -> Pair:
    """The pair without the prompt at the beginning of the answers, if both repeat it."""
    text = pair.prompt.strip()
    ends = _end_of_prompt(text, pair.chosen), _end_of_prompt(text, pair.rejected)
    end = max(ends)
    if not text or end == 0:
        return pair
    if ends[0] == ends[1] and pair.chosen[:end] == pair.rejected[:end]:
        notes[REPEATED] += 1
        return Pair(pair.chosen[:end], pair.chosen[end:], pair.rejected[end:])
    notes[REPEATED_IN_ONE] += 1
    return pair


def _end_of_prompt(prompt: str, answer: str) -> int:
    """Where the prompt ends with which an answer begins; 0 if it does not begin with it."""
    start = len(answer) - len(answer.lstrip()) if answer[:1].isspace() else 0
    if not answer.startswith(prompt, start):
        return 0
    end = start + len(prompt)
    follows = answer[end : end + 1]
    return end if len(prompt) > _BY_CHANCE or not follows or follows.isspace() else 0


def _common_prefix(first: Sequence[T], second: Sequence[T]) -> int:
    """Length of the longest common prefix, by bisection: comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _split_texts(chosen: str, rejected: str) -> Pair | Unusable:
    """Split off the common beginning as the prompt, at a word boundary.

    The space before an answer belongs to the answer, as in most tokenizers' vocabularies, and no
    answer is left empty.
    """
    if not chosen or not rejected or chosen == rejected:
        return _of_texts("", chosen, rejected)
    most = min(len(chosen), len(rejected)) - 1
    end = min(_common_prefix(chosen, rejected), most)
    while end > 0 and not (chosen[end].isspace() and rejected[end].isspace()):
        end -= 1
    return Pair(chosen[:end], chosen[end:], rejected[end:])


def _begins_as_transcript(text: object) -> bool:
    return isinstance(text, str) and text.startswith((HUMAN, _STRIPPED)) and ASSISTANT in text


def _is_transcript(text: str) -> bool:
    """Whether a text is a transcript, whose white space at both ends may have been stripped.

    A stripped one that ends with "Assistant:" is none: its answer, which was blank, is gone.
    """
    if text.startswith(HUMAN):
        return ASSISTANT in text
    return _begins_as_transcript(text) and not text.endswith(ASSISTANT)


def _of_transcripts(chosen: str, rejected: str) -> Pair | Unusable:
    """Split two transcripts after the last "Assistant:" in their common beginning."""
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    end = chosen.rfind(ASSISTANT, 0, _common_prefix(chosen, rejected))
    if end < 0:
        return Unusable(NO_COMMON_PROMPT)
    end += len(ASSISTANT)
    return _of_texts(chosen[:end], chosen[end:], rejected[end:])


def _of_messages(
    values: _Fields, where: str, columns: _Fields, notes: Counter[str]
) -> Pair | Unusable:
    turns = _turns(values, where, columns, notes)
    if isinstance(turns, Unusable):
        return turns
    pair = _of_conversations(*turns)
    if isinstance(values.prompt, str) and not turns.prompt:
        _note_prompt(values.prompt, pair, notes)
    return pair


def _turns(
    values: _Fields, where: str, columns: _Fields, notes: Counter[str]
) -> _Fields | Unusable:
    """The turns of the three fields; no turn is both in the prompt and in the answers.

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
    return _Fields(chosen[repeated:], rejected[repeated:], prompt)


def _of_conversations(
    chosen: list[Turn], rejected: list[Turn], prompt: list[Turn]
) -> Pair | Unusable:
    """Render turns as transcripts; the prompt extends as far as the conversations are equal."""
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    most = max(0, min(len(chosen), len(rejected)) - 1)
    shared = min(_common_prefix(chosen, rejected), most)
    prompt, chosen, rejected = prompt + chosen[:shared], chosen[shared:], rejected[shared:]
    if not all(turns and turns[0].content for turns in (chosen, rejected)):
        return Unusable("empty answer")
    opening = ""
    if chosen[0].role == rejected[0].role:
        opening = f"\n\n{SPEAKERS[chosen[0].role]}:"
    return _of_texts(
        transcript(prompt) + opening,
        transcript(chosen).removeprefix(opening),
        transcript(rejected).removeprefix(opening),
    )


def _repeated_turns(prompt: list[Turn], chosen: list[Turn], rejected: list[Turn]) -> int:
    """How many of the prompt's last turns are the first ones of both answers."""
    most = min(len(prompt), _common_prefix(chosen, rejected))
    return next((n for n in range(most, 0, -1) if prompt[-n:] == chosen[:n]), 0)


def _note_prompt(prompt: object, pair: Pair | Unusable, notes: Counter[str]) -> None:
    """Count a row whose prompt field is not used because the answers hold a conversation."""
    if not prompt or isinstance(pair, Unusable):
        return
    is_repeated = isinstance(prompt, str) and prompt.strip() in pair.prompt
    notes[REPEATED if is_repeated else NOT_IN_ANSWERS] += 1
