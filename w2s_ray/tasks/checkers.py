"""Rules that an answer follows or not: one pure function for each family of ``families``.

Each takes the answer and the parameters of its family, and is exact: what its docstring says is
all that it looks at. An answer without a letter or a digit follows no rule; ``follows`` of
``families`` sees to that for all of them. Blanks before and after the answer never count.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import NoReturn

COMMAS = ",，、،"
_SENTENCE_END = re.compile(r"""(?<=[.!?])["'”’)\]]{0,3}\s""")
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)
_BULLET = re.compile(r"[-*•][ \t]+\S")
_NUMBERED = re.compile(r"([0-9]{1,4})[.)][ \t]+\S")
_TITLE = re.compile(r"<<([^<>\n]+)>>")


def has_content(text: str) -> bool:
    """Whether there is a letter or a digit."""
    return any(character.isalnum() for character in text)


def _is_digraph(character: str) -> bool:
    """Whether it is a capital and a small letter in one, such as U+01C5."""
    return unicodedata.category(character) == "Lt"


def _is_capital(character: str) -> bool:
    return character.isupper() or _is_digraph(character)


def lowercase(text: str) -> bool:
    """It has a small letter, and no capital one of any script."""
    return any(map(str.islower, text)) and not any(map(_is_capital, text))


def uppercase(text: str) -> bool:
    """It has a capital letter, and no small one of any script."""
    return any(map(str.isupper, text)) and not any(c.islower() or _is_digraph(c) for c in text)


def no_commas(text: str) -> bool:
    """It has no comma, nor a full-width, ideographic or Arabic one."""
    return not any(comma in text for comma in COMMAS)


def at_most_words(text: str, n: int) -> bool:
    """It has at most ``n`` words: pieces between blanks."""
    return len(text.split()) <= n


def sentence_count(text: str, n: int) -> bool:
    """It has exactly ``n`` sentences, and ends with the end of one.

    A sentence ends with a full stop, question or exclamation mark before a blank or the end of the
    answer; up to three closing quotes or brackets may follow the mark. ``1.`` and ``Dr.`` end one
    too. Pieces without a letter or digit do not count.
    """
    pieces = [piece for piece in _SENTENCE_END.split(text.strip()) if has_content(piece)]
    closed = text.strip().rstrip("\"'”’)]").endswith((".", "!", "?"))
    return closed and len(pieces) == n


def end_phrase(text: str, phrase: str) -> bool:
    """Its last characters are ``phrase``, in the same case, and there is more before it."""
    before = text.strip().removesuffix(phrase)
    return text.strip().endswith(phrase) and has_content(before)


def bullet_points(text: str, n: int) -> bool:
    """Exactly ``n`` of its lines begin with ``-``, ``*`` or ``•``, a blank and more."""
    return sum(_BULLET.match(line.strip()) is not None for line in text.splitlines()) == n


def numbered_list(text: str, n: int) -> bool:
    """Its lines that begin with a number are ``1.`` to ``n.`` in order (or ``1)``), each with text.

    A number is followed by ``.`` or ``)``, a blank and more.
    """
    matches = [_NUMBERED.match(line.strip()) for line in text.splitlines()]
    return [int(match[1]) for match in matches if match] == list(range(1, n + 1))


def _occurrences(text: str, word: str) -> int:
    """How often a whole word is in the text, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def keyword_count(text: str, word: str, n: int) -> bool:
    """It has ``word`` at least ``n`` times as a whole word, in any case."""
    return _occurrences(text, word) >= n


def without_word(text: str, word: str) -> bool:
    """It does not have ``word`` as a whole word, in any case."""
    return _occurrences(text, word) == 0


def without_letter(text: str, letter: str) -> bool:
    """It does not have ``letter``, small or capital, with an accent or without."""
    return letter.casefold() not in unicodedata.normalize("NFKD", text).casefold()


def in_quotes(text: str) -> bool:
    """It begins and ends with double quotes, straight or curly, and has none in between."""
    inner = text.strip()[1:-1]
    pair = text.strip()[:1] + text.strip()[-1:]
    return pair in ('""', "“”") and has_content(inner) and not set(inner) & set('"“”')


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def json_object(text: str, keys: Sequence[str]) -> bool:
    """It is one JSON object whose keys are exactly ``keys``, in any order.

    It may be the whole content of one Markdown code block.
    """
    fenced = _FENCED.fullmatch(text.strip())
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


def title(text: str) -> bool:
    """It has a title between ``<<`` and ``>>`` on one line."""
    return any(map(has_content, _TITLE.findall(text)))


def first_word(text: str, word: str) -> bool:
    """Its first piece between blanks, without punctuation around it, is ``word`` in any case."""
    first = re.sub(r"^[\W_]+|[\W_]+$", "", text.split()[0])
    return first.casefold() == word.casefold()


def postscript(text: str) -> bool:
    """A line after the first begins with ``P.S.``, and text follows."""
    lines = [line.strip() for line in text.strip().splitlines()]
    starts = [n for n, line in enumerate(lines) if n and line.startswith("P.S.")]
    return any(
        has_content(" ".join((lines[n].removeprefix("P.S."), *lines[n + 1 :]))) for n in starts
    )
