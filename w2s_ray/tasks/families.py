"""Families of rules: of each, how a prompt asks for it and which answers obey it.

A check is a few lines that anyone can read; there is no judge model. An answer is stripped of
blanks at both ends first, and an empty one obeys nothing. Words are runs of letters, digits,
apostrophes and hyphens.
"""

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from w2s_ray.spec.families import Family

RULES_VERSION = 1
"""Part of a verdict's identity: increase it with every change to what obeys a rule."""
Parameters = Mapping[str, Any]


class Rule(NamedTuple):
    """One family.

    Attributes:
        asks: the sentence that asks for it, with names of parameters in braces.
        values: of each parameter, what a prompt may ask for.
        obeys: whether an answer, stripped and not empty, obeys the rule.
    """

    asks: str
    values: Mapping[str, tuple[Any, ...]]
    obeys: Callable[[str, Parameters], bool]


def words(text: str) -> list[str]:
    """The words of a text."""
    return re.findall(r"[\w'’-]*\w[\w'’-]*", text)


def sentences(text: str) -> int:
    """Number of sentences: ends of ``.``, ``!`` or ``?`` before a blank or the end of the text."""
    return len(re.findall(r"[.!?]+[\"'”’)]*(?=\s|$)", text))


def _lowercase(text: str, of: Parameters) -> bool:
    return text == text.lower() and bool(words(text))


def _no_commas(text: str, of: Parameters) -> bool:
    return "," not in text and bool(words(text))


def _at_most_words(text: str, of: Parameters) -> bool:
    return 1 <= len(words(text)) <= int(of["n"])


def _sentences(text: str, of: Parameters) -> bool:
    return sentences(text) == int(of["n"]) and text[-1:] in ".!?\"'”’)"


def _ends_with(text: str, of: Parameters) -> bool:
    return text.rstrip(".!\"'”’ ").lower().endswith(str(of["phrase"]).lower())


def _bullets(text: str, of: Parameters) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    items = [line for line in lines if re.match(r"[-*•] \S", line)]
    return len(items) == int(of["n"])


def _keyword(text: str, of: Parameters) -> bool:
    return [word.lower() for word in words(text)].count(of["word"].lower()) >= int(of["n"])


def _begins_with(text: str, of: Parameters) -> bool:
    return words(text)[:1] == [of["word"]]


def _in_quotes(text: str, of: Parameters) -> bool:
    pairs = (('"', '"'), ("“", "”"))
    framed = any(text[0] == first and text[-1] == last and len(text) > 2 for first, last in pairs)
    return framed and bool(words(text))


def _title(text: str, of: Parameters) -> bool:
    return re.match(r"<<[^<>\n]*\w[^<>\n]*>>", text) is not None


def _postscript(text: str, of: Parameters) -> bool:
    *_, last = text.splitlines()
    return re.match(r"P\.\s?S\.?:? *\w", last.strip()) is not None


def _without_letter(text: str, of: Parameters) -> bool:
    return of["letter"] not in text.lower() and len(words(text)) >= of["at_least"]


def _numbered(text: str, of: Parameters) -> bool:
    numbers = re.findall(r"^\s*(\d+)[.)] \S", text, re.MULTILINE)
    return numbers == [str(n) for n in range(1, of["n"] + 1)]


def _capitals(text: str, of: Parameters) -> bool:
    return text == text.upper() and text != text.lower()


def _json_keys(text: str, of: Parameters) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and list(value) == of["keys"]


_FAMILIES: Mapping[Family, Rule] = {
    "lowercase": Rule("Use only lowercase letters.", {}, _lowercase),
    "no_commas": Rule("Do not use any commas.", {}, _no_commas),
    "at_most_words": Rule(
        "Use at most {n} words.", {"n": (8, 10, 12, 15, 20, 25, 30)}, _at_most_words
    ),
    "sentences": Rule("Write exactly {n} sentences.", {"n": (2, 3, 4)}, _sentences),
    "ends_with": Rule(
        'End with the words "{phrase}".',
        {"phrase": ("that is all", "and so it goes", "thank you for reading", "see you soon")},
        _ends_with,
    ),
    "bullets": Rule(
        "Answer with exactly {n} bullet points, each on a line that starts with a hyphen.",
        {"n": (2, 3, 4, 5)},
        _bullets,
    ),
    "keyword": Rule(
        'Use the word "{word}" at least {n} times.',
        {"word": ("always", "small", "people", "first", "water"), "n": (2, 3)},
        _keyword,
    ),
    "begins_with": Rule(
        'Begin with the word "{word}".',
        {"word": ("Today", "Once", "Some", "Yes", "Imagine", "Although")},
        _begins_with,
    ),
    "in_quotes": Rule("Put the whole answer in double quotation marks.", {}, _in_quotes),
    "title": Rule("Begin with a title in double angle brackets, such as <<a title>>.", {}, _title),
    "postscript": Rule(
        "End with a postscript on a line of its own that starts with P.S.", {}, _postscript
    ),
    "without_letter": Rule(
        'Write at least {at_least} words, none of which has the letter "{letter}".',
        {"letter": ("q", "z", "x", "j", "k"), "at_least": (5,)},
        _without_letter,
    ),
    "numbered": Rule(
        "Answer with a numbered list of exactly {n} items.", {"n": (2, 3, 4, 5)}, _numbered
    ),
    "capitals": Rule("Use only capital letters.", {}, _capitals),
    "json_keys": Rule(
        "Answer with a JSON object alone, whose keys are {keys} in this order.",
        {"keys": (["name", "reason"], ["title", "text"], ["what", "where", "why"])},
        _json_keys,
    ),
}
FAMILIES: Mapping[str, Rule] = MappingProxyType({str(name): of for name, of in _FAMILIES.items()})


def _is_void(value: Any) -> bool:
    """Whether a parameter asks for nothing: a number below 1, a blank text, no keys."""
    if isinstance(value, int):
        return value < 1
    return not value.strip() if isinstance(value, str) else not value


def obeys(check: Parameters, text: str) -> bool:
    """Whether an answer obeys a check, ``{"family": name, …parameters}``.

    Raises:
        ValueError: there is no such family, or a parameter is missing, of another kind, or empty.
    """
    rule = FAMILIES.get(str(check.get("family")))
    if rule is None:
        raise ValueError(
            f"check: given the family {check.get('family')!r}, expected one of "
            f"{', '.join(FAMILIES)}"
        )
    for name, values in rule.values.items():
        given = check.get(name)
        if type(given) is not type(values[0]) or _is_void(given):
            kind = type(values[0]).__name__
            raise ValueError(
                f"check of the family {check['family']}: given {name} = {check.get(name)!r}, "
                f"expected a value like {values[0]!r} ({kind})"
            )
    stripped = text.strip()
    return bool(stripped) and rule.obeys(stripped, check)
