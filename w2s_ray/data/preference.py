"""Parsing of raw preference rows in any supported format into (prompt, chosen, rejected).

The formats are TRL's (an explicit prompt, or one that is implicit in the common beginning of chosen
and rejected; each either as texts or as conversations), ShareGPT's turns, and the transcripts of
HH-RLHF. Conversations are rendered as text in the style of HH-RLHF, not with a model's chat
template: weak and strong models may have different tokenizers and templates, and text is the
interface between them. docs/data.md describes all of it for users.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from w2s_ray.data.columns import Unusable, wrong_type
from w2s_ray.data.conversations import SPEAKERS, Turn, transcript
from w2s_ray.data.pair_fields import (
    REPEATED,
    Fields,
    common_prefix,
    read_all_turns,
    read_fields,
)
from w2s_ray.data.transcripts import end_of_assistant

REPEATED_IN_ONE = "prompt repeated in one of the two answers; kept"
NO_COMMON_PROMPT = "no common prompt"
NOT_IN_ANSWERS = "prompt not read: the answers contain another conversation"

_BY_CHANCE = 20
"""An answer may begin with a prompt of at most so many characters by chance, as in greetings."""


class Pair(NamedTuple):
    """Three texts: ``prompt + chosen`` was preferred to ``prompt + rejected``."""

    prompt: str
    chosen: str
    rejected: str


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
    values, columns, is_hh = read_fields(row, where, renamed, form, notes)
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


def _split_texts(chosen: str, rejected: str) -> Pair | Unusable:
    """Split off the common beginning as the prompt, at a word boundary.

    The space before an answer belongs to the answer, as in most tokenizers' vocabularies, and no
    answer is left empty.
    """
    if not chosen or not rejected or chosen == rejected:
        return _of_texts("", chosen, rejected)
    most = min(len(chosen), len(rejected)) - 1
    end = min(common_prefix(chosen, rejected), most)
    while end > 0 and not (chosen[end].isspace() and rejected[end].isspace()):
        end -= 1
    return Pair(chosen[:end], chosen[end:], rejected[end:])


def _of_transcripts(chosen: str, rejected: str) -> Pair | Unusable:
    """Split two transcripts after the last "Assistant:" in their common beginning."""
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    end = end_of_assistant(chosen, common_prefix(chosen, rejected))
    if end < 0:
        return Unusable(NO_COMMON_PROMPT)
    return _of_texts(chosen[:end], chosen[end:], rejected[end:])


def _of_messages(
    values: Fields, where: str, columns: Fields, notes: Counter[str]
) -> Pair | Unusable:
    turns = read_all_turns(values, where, columns, notes)
    if isinstance(turns, Unusable):
        return turns
    pair = _of_conversations(*turns)
    if isinstance(values.prompt, str) and not turns.prompt:
        _note_prompt(values.prompt, pair, notes)
    return pair


def _of_conversations(
    chosen: list[Turn], rejected: list[Turn], prompt: list[Turn]
) -> Pair | Unusable:
    """Render turns as transcripts; the prompt extends as far as the conversations are equal."""
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    most = max(0, min(len(chosen), len(rejected)) - 1)
    shared = min(common_prefix(chosen, rejected), most)
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


def _note_prompt(prompt: object, pair: Pair | Unusable, notes: Counter[str]) -> None:
    """Count a row whose prompt field is not used because the answers hold a conversation."""
    if not prompt or isinstance(pair, Unusable):
        return
    is_repeated = isinstance(prompt, str) and prompt.strip() in pair.prompt
    notes[REPEATED if is_repeated else NOT_IN_ANSWERS] += 1
