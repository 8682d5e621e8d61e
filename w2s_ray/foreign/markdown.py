"""Foreign names in Markdown: as code, in which nothing marks anything up."""

import re

from w2s_ray.printable import printable

LONGEST_NAME = 200  # characters


def code_span(name: str) -> str:
    """A name as a span of code, whatever back quotes, tags or line breaks it has."""
    text = printable(re.sub(r"[\r\n]+", " ", name))
    if len(text) > LONGEST_NAME:
        text = f"{text[:LONGEST_NAME]}…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    # A back quote at an end would be read as part of the fence; an empty span is none.
    space = " " if not text or "`" in (text[0], text[-1]) else ""
    return f"{fence}{space}{text}{space}{fence}"
