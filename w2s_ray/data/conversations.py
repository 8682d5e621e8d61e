"""Messages of the common dialects as turns, and turns as a transcript in the style of HH-RLHF.

A message is {role, content}, as in TRL, or {from, value}, as in ShareGPT. Its content is a text or
a list of text parts. A list of messages may itself be written as a text, as in a cell of CSV. What
a transcript cannot hold is never dropped unsaid: a row with tool calls or images is unusable, and
other fields of a message are named in the notes on the data.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from w2s_ray.data.columns import Unusable, shortened, wrong_type
from w2s_ray.errors import InputError
from w2s_ray.foreign.json_text import check_depth
from w2s_ray.foreign.limits import limit
from w2s_ray.foreign.rows import count_note, listed

SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant", "tool": "Tool"}
"""How each role is written in a transcript."""

ROLES = {
    **{role: role for role in SPEAKERS},
    "developer": "system",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function": "tool",
    "ipython": "tool",
}
"""The roles that messages may have (in upper or lower case) → ours."""

AS_TEXT = "messages written as text; parsed"

CALLS = ("tool_calls", "function_call")
"""Fields of a message, or in ShareGPT the role, of a call that the assistant makes."""

MAY_OPEN = frozenset("[{ \t\r\n")
"""Characters with which messages written as text may begin."""

_READ = frozenset({"role", "content", "from", "value"})
_OPENING = re.compile(r"\s*\[?\s*\{\s*(['\"])(role|from|content|value)\1\s*:")
_TOOL_CALLS = Unusable("with tool calls (not supported)")


class Turn(NamedTuple):
    """What one participant says; ``role`` is a key of ``SPEAKERS``."""

    role: str
    content: str


def transcript(turns: Iterable[Turn]) -> str:
    r"""The turns as text: ``\n\nHuman: …\n\nAssistant: …``."""
    return "".join(f"\n\n{SPEAKERS[turn.role]}: {turn.content}" for turn in turns)


def read_turns(
    messages: list[Any], where: str, column: str, unread: set[str]
) -> list[Turn] | Unusable:
    """Parse the messages of one field.

    Args:
        messages: the value of the field.
        where: file and line of the row, for messages to the user.
        column: name of the field in the file.
        unread: receives the names of the messages' fields that have a value and are not read.

    Raises:
        InputError: a message has no known role or no text.
    """
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            expected = f"{{role, content}} with a role of {', '.join(SPEAKERS)}"
            raise wrong_type(where, column, message, expected)
        role, content = message.get("role"), message.get("content")
        if role is None:
            role = message.get("from")
        if content is None:
            content = message.get("value")
        if role in CALLS:
            return _TOOL_CALLS
        if len(message) > 2 or content is None:
            if any(message.get(name) for name in CALLS):
                return _TOOL_CALLS
            unread.update(name for name in message.keys() - _READ if message[name] is not None)
        ours = ROLES.get(role) if isinstance(role, str) else None
        if ours is None or not isinstance(content, str):
            place = f"{where}: field '{column}': message {number}"
            ours = _role(role, place)
            if isinstance(content, list):
                content = _joined(content, place)
                if isinstance(content, Unusable):
                    return content
            if not isinstance(content, str):
                raise _no_text(message, content, place)
        turns.append(Turn(ours, content))
    return turns


def note_fields(unread: Collection[str], notes: Counter[str]) -> None:
    """Count a row whose messages have fields that are not read, by the names of these fields."""
    if unread:
        count_note(notes, "message fields not read", sorted(unread))


def messages_in(text: str, where: str, column: str) -> list[Any] | None:
    """The messages that are written in a text as JSON or as Python prints them; None if none are.

    Raises:
        InputError: the text is such a list from its first to its last character, but cannot be
            parsed.
    """
    if text[:1] not in MAY_OPEN or not _OPENING.match(text):
        return None
    if text.rstrip()[-1] not in "]}":
        return None  # a text that continues after the messages, such as a question about them
    is_short = len(text) <= limit("literal.characters")
    for parse in (json.loads, ast.literal_eval) if is_short else (json.loads,):
        try:
            value = parse(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        check_depth(value, f"{where}: field '{column}'")
        return value if isinstance(value, list) else [value]
    parsers = "neither JSON nor Python can" if is_short else "JSON cannot"
    raise InputError(
        f"{where}: field '{column}' is a list of messages written as text that {parsers} read: "
        f"{shortened(text)}; expected JSON, or a file of .jsonl or .parquet"
    )


def _role(given: object, place: str) -> str:
    """Our name of a role; ``place`` is that of its message."""
    name = given.strip().lower() if isinstance(given, str) else ""
    if name in ROLES:
        return ROLES[name]
    if given is None:
        raise InputError(f"{place} has no role; expected {{role, content}} or {{from, value}}")
    near = get_close_matches(name, ROLES, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(
        f"{place} has role {shortened(given)}; expected a role of {', '.join(ROLES)}{hint}"
    )


def _joined(parts: list[Any], place: str) -> str | Unusable:
    """The text of a content that is a list of parts, {type: text, text}."""
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text":
            return Unusable(f"with content of type {str(kind)[:20]} (not supported)")
        if not isinstance(text, str):
            raise InputError(f"{place} has the part {shortened(part)}; expected {{type, text}}")
        texts.append(text)
    return "".join(texts)


def _no_text(message: Mapping[str, Any], content: object, place: str) -> InputError:
    if content is not None:
        return InputError(f"{place} has content {shortened(content)}; expected a text")
    fields = listed(message)
    return InputError(f"{place} has no content; expected a text (its fields are {fields})")
