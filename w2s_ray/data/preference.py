"""Parsing of raw preference rows in any supported format into (prompt, chosen, rejected).

The formats are TRL's (an explicit prompt, or one that is implicit in the common beginning of chosen
and rejected; each either as texts or as conversations, lists of {role, content}) and the
transcripts of HH-RLHF. Conversations are rendered as text in the style of HH-RLHF, not with a
model's chat template: weak and strong models may have different tokenizers and templates, and text
is the interface between them.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from w2s_ray.data.columns import Unusable, required, wrong_type

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
ROLES = {"system": "System", "user": "Human", "assistant": "Assistant", "tool": "Tool"}

_TURN = "a text or a list of {role, content}"


class Pair(NamedTuple):
    """Three texts: ``prompt + chosen`` was preferred to ``prompt + rejected``."""

    prompt: str
    chosen: str
    rejected: str


class _Turn(NamedTuple):
    role: str
    content: str


def read_pair(
    row: Mapping[str, Any], where: str, renamed: Mapping[str, str], form: str = "auto"
) -> Pair | Unusable:
    """Parse one preference pair.

    Args:
        row: a raw row with the fields chosen, rejected and optionally prompt.
        where: file and line of the row, for messages.
        renamed: our field name → the column's name in this data.
        form: ``trl``, ``hh``, or ``auto``: hh where both texts are transcripts.

    Raises:
        InputError: a field is missing or has the wrong type.
    """
    chosen = required(row, where, "chosen", renamed)
    rejected = required(row, where, "rejected", renamed)
    prompt = row.get("prompt")
    if "prompt" in renamed:
        prompt = required(row, where, "prompt", renamed)
    for name, value in (("chosen", chosen), ("rejected", rejected), ("prompt", prompt)):
        if not isinstance(value, str | list) and (name, value) != ("prompt", None):
            raise wrong_type(where, renamed.get(name, name), value, _TURN)
    if isinstance(chosen, str) != isinstance(rejected, str):
        expected = f"a {'text' if isinstance(chosen, str) else 'list'}, like chosen"
        raise wrong_type(where, renamed.get("rejected", "rejected"), rejected, expected)

    if isinstance(chosen, list):
        if form == "hh":
            raise wrong_type(where, renamed.get("chosen", "chosen"), chosen, "a transcript")
        turns = {
            name: _turns(value, where, renamed.get(name, name))
            for name, value in (("chosen", chosen), ("rejected", rejected), ("prompt", prompt))
        }
        pair = _of_conversations(**turns, prompt_is_text=isinstance(prompt, str))
    elif form == "hh" or (form == "auto" and _is_transcript(chosen) and _is_transcript(rejected)):
        pair = _of_transcripts(chosen, rejected)
    elif isinstance(prompt, list):
        raise wrong_type(where, renamed.get("prompt", "prompt"), prompt, "a text, like chosen")
    elif prompt is not None:
        pair = _of_texts(prompt, chosen, rejected)
    else:
        pair = _split_texts(chosen, rejected)
    return pair


def conversations_in(
    row: Mapping[str, Any], where: str, renamed: Mapping[str, str]
) -> list[list[_Turn]] | None:
    """The whole conversations that end in chosen and in rejected; None for a row of texts."""
    prompt, *answers = (row.get(renamed.get(name, name)) for name in Pair._fields)
    if not isinstance(answers[0], list):
        return None
    turns = [_turns(answer, where, "chosen") for answer in answers]
    before = _turns(prompt, where, "prompt")
    has_all = isinstance(prompt, str) and turns[0][:1] and turns[0][0].role != "assistant"
    if has_all or all(answer[: len(before)] == before for answer in turns):
        before = []
    return [before + answer for answer in turns]


def _of_texts(prompt: str, chosen: str, rejected: str) -> Pair | Unusable:
    if not chosen or not rejected:
        return Unusable("empty answer")
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    return Pair(prompt, chosen, rejected)


def _shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the longest common prefix."""
    equal = (a == b for a, b in zip(first, second, strict=False))
    return sum(takewhile(bool, equal))


def _split_texts(chosen: str, rejected: str) -> Pair | Unusable:
    """Split off the common beginning as the prompt, at a word boundary.

    The space before an answer belongs to the answer, as in most tokenizers' vocabularies, and no
    answer is left empty.
    """
    if not chosen or not rejected or chosen == rejected:
        return _of_texts("", chosen, rejected)
    most = min(len(chosen), len(rejected)) - 1
    end = min(_shared(chosen, rejected), most)
    while end > 0 and not (chosen[end].isspace() and rejected[end].isspace()):
        end -= 1
    return Pair(chosen[:end], chosen[end:], rejected[end:])


def _is_transcript(text: str) -> bool:
    return text.startswith(HUMAN) and ASSISTANT in text


def _of_transcripts(chosen: str, rejected: str) -> Pair | Unusable:
    """Split two transcripts after the last "Assistant:" in their common beginning."""
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    end = chosen.rfind(ASSISTANT, 0, _shared(chosen, rejected))
    if end < 0:
        return Unusable("no common prompt")
    end += len(ASSISTANT)
    return _of_texts(chosen[:end], chosen[end:], rejected[end:])


def _of_conversations(
    chosen: list[_Turn], rejected: list[_Turn], prompt: list[_Turn], prompt_is_text: bool
) -> Pair | Unusable:
    """Render turns as transcripts; the prompt extends as far as the conversations are equal.

    Args:
        chosen: turns of the preferred answer, possibly with the conversation before it.
        rejected: turns of the other answer, likewise.
        prompt: turns of the prompt field; may be empty.
        prompt_is_text: the prompt was plain text, not turns. If the answers contain the whole
            conversation, as in many data sets of the Hub, it repeats a part of them and is ignored.
    """
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    if prompt_is_text and chosen and chosen[0].role != "assistant":
        prompt = []
    elif prompt and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    most = max(0, min(len(chosen), len(rejected)) - 1)
    shared = min(_shared(chosen, rejected), most)
    prompt, chosen, rejected = prompt + chosen[:shared], chosen[shared:], rejected[shared:]
    if not all(turns and turns[0].content for turns in (chosen, rejected)):
        return Unusable("empty answer")
    opening = ""
    if chosen[0].role == rejected[0].role:
        opening = f"\n\n{ROLES[chosen[0].role]}:"
    return _of_texts(
        _rendered(prompt) + opening,
        _rendered(chosen).removeprefix(opening),
        _rendered(rejected).removeprefix(opening),
    )


def _rendered(turns: list[_Turn]) -> str:
    return "".join(f"\n\n{ROLES[turn.role]}: {turn.content}" for turn in turns)


def _turns(value: str | list[Any] | None, where: str, column: str) -> list[_Turn]:
    if not isinstance(value, list):
        return [_Turn("user", value)] if value else []
    turns = []
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES or not isinstance(content, str):
            roles = ", ".join(ROLES)
            raise wrong_type(where, column, message, f"{{role, content}} with a role of {roles}")
        turns.append(_Turn(role, content))
    return turns
