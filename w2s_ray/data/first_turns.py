r"""What the user says first in a text that marks who speaks, in whatever dialect it does so.

Three families of marks are read: speakers (``Human:``, ``User:``, ``Bot:``, ``AI:``), parts of a
task (``Q:``, ``Question:``, ``### Instruction``, ``A:``, ``### Response``), and the special tokens
of chat templates (``<|im_start|>user``, ``[INST]``). The family of the first mark decides which
others count: an ``A:`` in what a ``User:`` says is a choice and no answer. What the system says
before is no part of what the user says.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

USER, ASSISTANT, SYSTEM, TOOL = "Human", "Assistant", "System", "Tool"
SPEAKER, TASK, TOKEN = "speaker", "task", "token"

_ROLES = {
    SPEAKER: {
        USER: "user human prompter me",
        ASSISTANT: "assistant|ai assistant|ai|bot|chatbot|chatgpt|gpt|model",
        SYSTEM: "system developer",
        TOOL: "tool",
    },
    TASK: {
        USER: "question q instructions instruction input task prompt query",
        ASSISTANT: "answer a response output completion reply summary tl;dr tldr",
    },
}
_WORDS = {
    word: (family, role)
    for family, roles in _ROLES.items()
    for role, words in roles.items()
    for word in (words.split("|") if "|" in words else words.split())
}
_OF_TOKENS = {
    **dict.fromkeys(("user", "human", "prompter"), USER),
    **dict.fromkeys(("assistant", "model", "bot", "ai", "gpt", "chatbot"), ASSISTANT),
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("tool", "ipython", "observation"), TOOL),
}

_ANY = "|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True)).replace(r"\ ", "[ ]")
_NAMED = "|".join(_OF_TOKENS)
_MARK = re.compile(
    rf"""
    <\|(?:im_start|start_header_id|start)\|>\s*(?P<a>{_NAMED})\b(?:<\|(?:end_header_id|message)\|>)?
  | <start_of_turn>\s*(?P<b>{_NAMED})\b
  | <\|(?P<c>{_NAMED})\|>
  | \[\|(?P<d>{_NAMED})\|\]
  | <(?P<e>{_NAMED})>
  | \[(?P<inst>/?INST)\]
  | ^[ \t>]*(?P<header>\#+)[ \t]*(?P<titled>{_ANY})[ \t]*\d*[ \t]*(?:(?=\n)|\Z|:)
  | ^[ \t>]*(?:\*\*|\[)?(?P<word>{_ANY})(?:[ \t]*\d+)?[ \t]*(?:\*\*|\])?:(?:\*\*)?
  | (?:(?<=\s)|(?<=</s>))(?P<inline>(?-i:System|Human|User|Assistant|Bot|AI|Tool|USER|ASSISTANT)):
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_SYSTEM_BLOCK = re.compile(r"<<SYS>>.*?<</SYS>>", re.DOTALL)
_SPECIAL = re.compile(rf"<\|\w+\|>|</?s>|<(?:bos|eos|start_of_turn|end_of_turn)>|</(?:{_NAMED})>")
"""Special tokens that are no marks of a speaker: where a text or a turn begins or ends."""
_CHOICES = re.compile(r"[^\n]*\n[ \t(]*B[ \t]*[:.)]")
_CONTENT = re.compile(
    r"^[ \t#*]*(?:Context|Passage|Document|Article|Text|Story|Premise|Background|Paragraph|Source"
    r"|Dialogue|Review|Sentence|Post|Title|Abstract|Code|Table|Data|Facts?|Evidence|Subreddit)"
    r"[ \t]*\d*(?:\*\*)?[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
"""Names of what a question is about: no text of the system."""
_ONLY_FIRST = frozenset({"instruction", "instructions", "input", "task", "prompt", "query", "me"})
"""Words that begin a turn in the middle of a text only with ``###``, as in "Input: two numbers"."""
_LAST = frozenset({"answer", "response", "reply"})
"""Words that end what any speaker says where nothing follows them."""


class FirstTurn(NamedTuple):
    """What the user says first.

    Attributes:
        text: what is said; after a turn of the assistant, that one and the user's with their marks.
        is_plain: whether it is what the user says and nothing else, like a plain prompt.
        has_no_mark: whether it begins the text without a mark, like a plain prompt's turns.
        is_guess: whether what is before it, without a mark, may be a part of the prompt.
    """

    text: str
    is_plain: bool = True
    has_no_mark: bool = False
    is_guess: bool = False


class _Mark(NamedTuple):
    start: int
    end: int
    family: str
    role: str
    word: str
    is_inline: bool = False
    is_header: bool = False


def visible(text: str) -> str:
    """The text without characters that nobody sees, in Unicode's compatible composed form (NFKC).

    Invisible are format characters (category Cf, such as a byte order mark or a zero-width space)
    and variation selectors. White space is kept.
    """
    if text.isascii():
        return text
    unseen = {
        ord(character)
        for character in set(text)
        if unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"
    }
    if unseen:
        text = text.translate(dict.fromkeys(unseen))
    return unicodedata.normalize("NFKC", text)


def first_turn(
    text: str, *, is_whole: bool = True, may_follow_text: bool = False
) -> FirstTurn | None:
    """What the user says first; None if no marks say it.

    Args:
        text: as it was read.
        is_whole: whether the last turn is complete without another one after it.
        may_follow_text: whether a text without a mark may be before the first mark: it is the
            system's where the user speaks next, and the user's where the assistant does.
    """
    text = _SYSTEM_BLOCK.sub("", visible(text))
    marks = _marks(text)
    if not marks:
        return None
    opening = _said(text[: marks[0].start])
    if not opening:
        return _of_marks(text, marks, is_whole)
    if not may_follow_text:
        return None
    if marks[0].role == ASSISTANT:
        return _without_mark(text, marks, opening)
    if marks[0].role != USER or (turn := _of_marks(text, marks, is_whole)) is None:
        return None
    if marks[0].family != TOKEN and _CONTENT.search(text, 0, marks[0].start):
        return FirstTurn(f"{opening} {turn.text}", has_no_mark=True)
    return turn._replace(is_guess=marks[0].family != TOKEN and not marks[0].is_header)


def _without_mark(text: str, marks: Sequence[_Mark], opening: str) -> FirstTurn | None:
    """The beginning of a text that the assistant answers: at the text's end, or before the user."""
    if len(marks) == 1 and not _said(text[marks[0].end :]):
        return FirstTurn(opening, has_no_mark=True)
    if any(mark.role == USER for mark in marks) or not _said(text[marks[-1].end :]):
        return FirstTurn(opening, has_no_mark=True, is_guess=True)
    return None


def _of_marks(text: str, marks: Sequence[_Mark], is_whole: bool) -> FirstTurn | None:
    """What the user says first, where a mark is before each turn."""
    ends = [mark.start for mark in marks[1:]] + [len(text)]
    said = [_said(text[mark.end : end]) for mark, end in zip(marks, ends, strict=True)]
    before: list[str] = []
    for number, mark in enumerate(marks):
        after = number + (_parts(marks[number:]) if mark.role == USER else 1)
        turn = " ".join(filter(None, said[number:after]))
        if mark.role == USER and turn:
            if after == len(marks) and not is_whole:
                return None
            marked = [*before, f"{USER}: {turn}"] if before else [turn]
            return FirstTurn(" ".join(marked), is_plain=not before)
        if mark.role != SYSTEM:
            before.append(f"{mark.role}: {said[number]}".strip())
    return None


def _parts(marks: Sequence[_Mark]) -> int:
    """How many marks from the first one on are parts of one task, as an instruction and its input.

    A word that comes again begins another task.
    """
    words: list[str] = []
    for mark in marks:
        if (mark.family, mark.role) != (TASK, USER) or mark.word in words:
            break
        words.append(mark.word)
    return max(1, len(words))


def _said(text: str) -> str:
    return " ".join(_SPECIAL.sub(" ", text).split())


def _marks(text: str) -> list[_Mark]:
    """The marks that count beside the first one."""
    marks = [mark for found in _MARK.finditer(text) if (mark := _mark(found)) is not None]
    if not marks or not _said(text[: marks[0].start]):
        return _of_one_family(text, marks)
    marks = [mark for mark in marks if not mark.is_inline or text[mark.start : mark.end].isupper()]
    if marks and _said(text[: marks[0].start]):
        marks = [m for m in marks if m.word not in _ONLY_FIRST or m.is_header]
    return _of_one_family(text, marks)


def _of_one_family(text: str, marks: list[_Mark]) -> list[_Mark]:
    if not marks or marks[0].family == TOKEN:
        return [mark for mark in marks if mark.family == TOKEN]
    if marks[0].family == TASK:
        return [mark for mark in marks if not mark.is_inline]
    return [
        mark
        for mark in marks
        if mark.family != TASK
        or mark.is_header
        or (mark.word in _LAST and not _said(text[mark.end :]))
    ]


def _mark(found: re.Match[str]) -> _Mark | None:
    """A mark as it was matched; None for the first of several choices, A: and B:."""
    start, end = found.span()
    named = found["a"] or found["b"] or found["c"] or found["d"] or found["e"]
    if named:
        return _Mark(start, end, TOKEN, _OF_TOKENS[named.lower()], named.lower())
    if found["inst"]:
        return _Mark(start, end, TOKEN, USER if found["inst"][0] != "/" else ASSISTANT, "inst")
    word = (found["titled"] or found["word"] or found["inline"]).lower()
    family, role = _WORDS[word]
    if word == "a" and _CHOICES.match(found.string, end):
        return None
    is_header, is_inline = found["header"] is not None, found["inline"] is not None
    return _Mark(start, end, family, role, word, is_inline, is_header)
