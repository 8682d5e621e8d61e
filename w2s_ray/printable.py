"""Foreign texts made fit to print: nothing in them steers a terminal or turns the reading order.

A name, a column or a message from a file may hold escape sequences, carriage returns, marks that
reverse the direction of text, or half a surrogate pair, which no encoding has. ``printable`` writes
each by number. It is applied in every ``InputError``, in notes on failures, to all that is printed
on the console, in reports and in the cards of exported models.
"""

import unicodedata

LONGEST_LINE = 4_000  # characters of one message
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# Tabs and newlines are the caller's; joiners are part of how words and emoji are written.
_SHOWN = "\n\t\u200c\u200d"


def printable(text: str) -> str:
    """The text with ``\\u001b`` and the like for what is invisible or controls its output.

    Tabs and newlines stay; applied twice, it is the same.
    """
    if text.isprintable():
        return text
    return "".join(map(_character, text))


def shortened(text: str, most: int = LONGEST_LINE) -> str:
    """The text, or its beginning with a note of how many characters were left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters)"


def _character(character: str) -> str:
    if unicodedata.category(character) in _HIDDEN and character not in _SHOWN:
        return f"\\u{ord(character):04x}"
    return character
