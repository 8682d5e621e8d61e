"""A raw row as (prompt, chosen, rejected), whatever the format it came in.

Formats: TRL's (the prompt written out, or implicit in what chosen and rejected share; each either
texts or conversations, lists of {role, content}) and the transcripts of HH-RLHF. Conversations
become text in one way that belongs to no model, that of HH: weak and strong models may have
different tokenizers and chat templates, and the text is the interface between them.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from w2s_ray.data.columns import Unusable, required, wrong_type

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
ROLES = {"system": "System", "user": "Human", "assistant": "Assistant", "tool": "Tool"}

_TURN = "a text or a list of {role, content}"


class Pair(NamedTuple):
    """Texts: ``prompt + chosen`` was preferred to ``prompt + rejected``."""

    prompt: str
    chosen: str
    rejected: str


class _Turn(NamedTuple):
    role: str
    content: str


def read_pair(
    row: Mapping[str, Any], where: str, renamed: Mapping[str, str], form: str = "auto"
) -> Pair | Unusable:
    """One preference pair.

    Args:
        row: a raw row; fields chosen, rejected and perhaps prompt.
        where: its place, for messages.
        renamed: our field name → the column's name in this data.
        form: ``trl``, ``hh``, or ``auto``: hh where both texts are transcripts.

    Raises:
        InputError: a field is missing or of the wrong type.
    """
    chosen = required(row, where, "chosen", renamed)
    rejected = required(row, where, "rejected", renamed)
    named = "prompt" in renamed
    prompt = required(row, where, "prompt", renamed) if named else row.get("prompt")
    for name, value in (("chosen", chosen), ("rejected", rejected), ("prompt", prompt)):
        if not isinstance(value, str | list) and (name, value) != ("prompt", None):
            raise wrong_type(where, renamed.get(name, name), value, _TURN)
    if isinstance(chosen, str) != isinstance(rejected, str):
        expected = "a text, as chosen" if isinstance(chosen, str) else "a list, as chosen"
        raise wrong_type(where, renamed.get("rejected", "rejected"), rejected, expected)

    if isinstance(chosen, list):
        if form == "hh":
            raise wrong_type(where, renamed.get("chosen", "chosen"), chosen, "a transcript")
        turns = {
            name: _turns(value, where, renamed.get(name, name))
            for name, value in (("chosen", chosen), ("rejected", rejected), ("prompt", prompt))
        }
        pair = _of_conversations(**turns, alone=isinstance(prompt, str))
    elif form == "hh" or (form == "auto" and _is_transcript(chosen) and _is_transcript(rejected)):
        pair = _of_transcripts(chosen, rejected)
    elif isinstance(prompt, list):
        raise wrong_type(where, renamed.get("prompt", "prompt"), prompt, "a text, as chosen")
    elif prompt is not None:
        pair = _of_texts(prompt, chosen, rejected)
    else:
        pair = _split_texts(chosen, rejected)
    return pair


def _of_texts(prompt: str, chosen: str, rejected: str) -> Pair | Unusable:
    if not chosen or not rejected:
        return Unusable("empty answer")
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    return Pair(prompt, chosen, rejected)


def _shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the longest common beginning."""
    agree = (a == b for a, b in zip(first, second, strict=False))
    return sum(takewhile(bool, agree))


def _split_texts(chosen: str, rejected: str) -> Pair | Unusable:
    """The prompt is what the texts share, but for a word begun: both answers begin a word.

    The space before an answer belongs to the answer, as in the vocabularies of most tokenizers,
    and no answer is left empty.
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
    """The prompt ends with the last "Assistant:" up to which both transcripts are the same."""
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    end = chosen.rfind(ASSISTANT, 0, _shared(chosen, rejected))
    if end < 0:
        return Unusable("no common prompt")
    end += len(ASSISTANT)
    return _of_texts(chosen[:end], chosen[end:], rejected[end:])


def _of_conversations(
    chosen: list[_Turn], rejected: list[_Turn], prompt: list[_Turn], alone: bool
) -> Pair | Unusable:
    """Turns as one transcript; the prompt goes on as long as the conversations agree.

    Args:
        alone: the prompt was a mere text. Where the answers hold the whole conversation, as in
            many sets of the Hub, it only repeats a part of them.
    """
    if chosen == rejected:
        return Unusable("chosen equals rejected")
    if alone and chosen and chosen[0].role != "assistant":
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
        _written(prompt) + opening,
        _written(chosen).removeprefix(opening),
        _written(rejected).removeprefix(opening),
    )


def _written(turns: list[_Turn]) -> str:
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
