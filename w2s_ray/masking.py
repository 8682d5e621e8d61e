"""Secrets in texts: what is printed, raised or recorded never holds a password or a token.

Addresses carry secrets in their user info (``s3://KEY:SECRET@bucket``) and in their query
(``?X-Amz-Signature=…``); tokens stand in texts by themselves. ``masked`` replaces them by ``***``.
It is applied where a text leaves the process: in every ``InputError``, in notes on failures, in the
execution of a record, and on standard output and error of the command. Keys do not depend on it.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, TextIO

MASK = "***"
# Parameters that say where data are, not who reads them; their values are shown.
HARMLESS = ("region", "scheme")

# The text before an @. A secret may hold slashes and colons, and begin as a port does.
_USER = r"[^\s/@:]*(?::\S*)?@"
_USER_OF_URI = re.compile(rf"(?P<scheme>\b[A-Za-z][\w+.-]*:/+){_USER}")
# The same without ``scheme://``; what follows our own schemes is a name.
_USER_ALONE = re.compile(
    r"(?<![\w/.+-])(?!(?:hf|pypi|generate):)[\w.+-]+:(?!\d+(?:[/?#\s:]|$))[^\s:/'\"]\S*@"
)
# A query ends before the punctuation that closes a quotation or a sentence.
_QUERY = re.compile(
    r"(?P<base>\b[A-Za-z][\w+.-]*:/+[^\s?#]*)(?P<query>[?#]\S*?)(?=[\"'`)\]}>,;:.…]*(?:\s|$))"
)
# A parameter named after a secret, in what is no URI.
_NAMED = re.compile(
    r"(?P<name>[?&;][\w.-]*(?:token|sig|secret|passw|key|credential)[\w.-]*=)[^\s&;*][^\s&;]*?"
    r"(?=[\"'`)\]}>,;:.…]*(?:\s|$)|[&;])",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"(?P<name>[?&#;][^\s=&#;]*=?)(?P<value>[^&#;]*)")
_TOKENS = (
    re.compile(r"\b(?P<kind>hf_|gh[opsur]_|github_pat_)[^\W_]{20,}\w*"),
    re.compile(r"\b(?P<kind>AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\b(?P<kind>[Bb]earer\s+)[\w.~+/=-]{8,}"),
)


def masked(text: str) -> str:
    """The text with ``***`` for each secret; applied twice, it is the same.

    Args:
        text: any; a URI in it ends at white space.
    """
    if "@" in text or ":/" in text:
        text = _USER_OF_URI.sub(rf"\g<scheme>{MASK}@", text)
        text = _USER_ALONE.sub(f"{MASK}@", text)
        text = _QUERY.sub(_masked_query, text)
    text = _NAMED.sub(rf"\g<name>{MASK}", text)
    for token in _TOKENS:
        text = token.sub(rf"\g<kind>{MASK}", text)
    return text


def masked_value(value: Any, mask: Callable[[str], str] = masked) -> Any:
    """JSON values with ``mask`` applied to every text; names of entries stay."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: masked_value(inner, mask) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked_value(inner, mask) for inner in value]
    return value


def masked_address(value: str) -> str:
    """A text that is one address, ``masked``; spaces, which no URI may have, do not end it."""
    if re.match(r"\s*[\w+.-]+:", value) and "@" in value:
        value = re.sub(r"\s", "", value)
    return masked(value)


class MaskedStream:
    """A text stream that writes what it is given ``masked``; in all else the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text and returns its length before masking, as callers expect."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _masked_query(found: re.Match[str]) -> str:
    return found["base"] + _PARAMETER.sub(_masked_parameter, found["query"])


def _masked_parameter(found: re.Match[str]) -> str:
    name = found["name"]
    if name.endswith("="):
        return found[0] if name.strip("?&#;=") in HARMLESS else f"{name}{MASK}"
    is_anchor = name[0] == "#" or len(found[0]) == 1  # or a question mark that ends a sentence
    return found[0] if is_anchor else f"{name[0]}{MASK}"
