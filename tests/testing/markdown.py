"""The blocks of code in a Markdown page, and which of them say that they cannot run here."""

import re
from typing import NamedTuple

FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
NOT_RUN = re.compile(r"^\s*<!-- not run: (?P<reason>\S.*?) -->\s*$")
REFUSED = {"sh", "shell", "zsh", "console", "shell-session", "py", "pycon", "python3"}


class Block(NamedTuple):
    line: int  # of the opening fence, from 1
    language: str
    code: str
    not_run: str  # the reason; empty: it is run


def blocks(markdown: str) -> list[Block]:
    """The bash and python blocks in order; ValueError for one that would escape or never ends."""
    found = []
    lines = markdown.splitlines()
    i = 0
    reason = ""
    while i < len(lines):
        fence = FENCE.match(lines[i])
        if fence is None:
            marker = NOT_RUN.match(lines[i])
            if marker or lines[i].strip():  # blank lines may stand between marker and block
                reason = marker["reason"] if marker else ""
            i += 1
            continue
        indent, ticks, info = fence.groups()
        language = (info.split() or [""])[0].lower()
        end = i + 1
        while end < len(lines) and not re.fullmatch(rf" *{ticks}{ticks[0]}* *", lines[end]):
            end += 1
        if end == len(lines):
            raise ValueError(f"line {i + 1}: the block never ends")
        if language in REFUSED:
            raise ValueError(f"line {i + 1}: {language!r} is not run; write bash or python")
        if language in ("bash", "python"):
            body = [line.removeprefix(indent) for line in lines[i + 1 : end]]
            found.append(Block(i + 1, language, "\n".join(body) + "\n", reason))
        reason = ""
        i = end + 1
    return found
