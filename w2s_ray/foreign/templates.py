"""Chat templates of models, tried within limits before they are used.

A template is a program (jinja). Its sandbox keeps it from files and from Python's internals, but
not from loops that do not end or from texts of terabytes. So a process that can be ended renders
the conversations first; what was quick and small there is quick and small again.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit

_PROGRAM = Path(__file__).with_name("template_trial.py")
_REQUEST_CHARACTERS = 32_000_000
"""Most characters of conversations that are tried in one process."""


def check_template(
    template: str, variables: Mapping[str, Any], conversations: Sequence[Any], name: str
) -> None:
    """Refuses a template that takes too long, or makes too long a text, of any conversation.

    Args:
        variables: what the template can read beside the messages, as JSON values.
        conversations: lists of messages.
        name: of the template, at the start of the message.

    Raises:
        InputError: the template exceeds a limit.
    """
    if len(template) > limit("template.characters"):
        raise InputError(f"{name}: {exceeded('template.characters', len(template))}")
    seconds = limit("template.seconds")
    request = {
        "template": template,
        "variables": dict(variables),
        "conversations": _beginning(conversations),
        "characters": limit("text.characters"),
        "memory": limit("template.memory"),
    }
    try:
        answer = subprocess.run(
            [sys.executable, "-I", str(_PROGRAM)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{name}: given one that does not render {len(conversations):,} conversations in "
            f"{seconds} s, expected one that does (limit template.seconds)"
        ) from None
    if not answer:  # ended for want of memory
        raise InputError(f"{name}: {exceeded('template.memory')}")
    found = json.loads(answer)
    if found:
        bound = "template.memory" if found["is_memory"] else "text.characters"
        raise InputError(f"{name}: conversation {found['conversation'] + 1}: {exceeded(bound)}")


def _beginning(conversations: Sequence[Any]) -> list[Any]:
    """The first conversations, at least one, as many as are tried."""
    kept: list[Any] = []
    characters = 0
    for conversation in conversations:
        characters += len(str(conversation))
        if kept and characters > _REQUEST_CHARACTERS:
            break
        kept.append(conversation)
    return kept
