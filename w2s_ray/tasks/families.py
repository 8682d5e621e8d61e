"""The families of rules: how each is worded in a prompt, its parameters, and its check."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.tasks import checkers

RULES_VERSION = 1
"""Part of keys: increase it when what some answer's verdict is changes."""
_MOST_KEYS = 100

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """A rule with parameters.

    Attributes:
        name: in checks, specs and tables.
        wording: the sentence of a prompt that asks for it, with the parameters in braces.
        follows: (answer, **parameters) -> whether it follows the rule.
        choices: the parameters of generated prompts; their types are those of the rule.
    """

    name: str
    wording: str
    follows: Callable[..., bool]
    choices: tuple[Parameters, ...] = (MappingProxyType({}),)

    @property
    def definition(self) -> str:
        """What the rule looks at, exactly."""
        return " ".join((self.follows.__doc__ or "").split())

    def sentence(self, parameters: Parameters) -> str:
        """The sentence of a prompt; a list is written with commas."""
        shown = {
            name: ", ".join(f'"{key}"' for key in value) if isinstance(value, list) else value
            for name, value in parameters.items()
        }
        return self.wording.format(**shown)


def _each(name: str, *values: Any) -> tuple[Parameters, ...]:
    return tuple(MappingProxyType({name: value}) for value in values)


_TRAIN = (
    Family("lowercase", "Use only lowercase letters.", checkers.lowercase),
    Family("no_commas", "Do not use any commas.", checkers.no_commas),
    Family(
        "at_most_words",
        "Use at most {n} words.",
        checkers.at_most_words,
        _each("n", 15, 20, 25, 30, 40),
    ),
    Family(
        "sentence_count",
        "Write exactly {n} sentences.",
        checkers.sentence_count,
        _each("n", 2, 3, 4, 5),
    ),
    Family(
        "end_phrase",
        "End your answer with exactly this phrase: {phrase}",
        checkers.end_phrase,
        _each("phrase", "That is all.", "Thank you for reading.", "Who would not agree?", "Enjoy!"),
    ),
    Family(
        "bullet_points",
        'Use exactly {n} bullet points, each on a line that begins with "- ".',
        checkers.bullet_points,
        _each("n", 2, 3, 4, 5),
    ),
    Family(
        "keyword_count",
        'Use the word "{word}" at least {n} times.',
        checkers.keyword_count,
        tuple(
            MappingProxyType({"word": word, "n": n})
            for word in ("always", "people", "small", "world")
            for n in (2, 3)
        ),
    ),
    Family("in_quotes", "Put your whole answer in double quotation marks.", checkers.in_quotes),
)
_TRANSFER = (
    Family(
        "json_object",
        "Answer only with a JSON object that has exactly these keys: {keys}",
        checkers.json_object,
        _each("keys", ["name", "use"], ["title", "text"], ["topic", "facts", "summary"]),
    ),
    Family("title", "Give it a title in double angle brackets, such as <<title>>.", checkers.title),
    Family(
        "without_letter",
        'Do not use the letter "{letter}".',
        checkers.without_letter,
        _each("letter", "b", "f", "g", "m", "p", "w"),
    ),
    Family(
        "without_word",
        'Do not use the word "{word}".',
        checkers.without_word,
        _each("word", "and", "can", "is", "it", "the"),
    ),
    Family(
        "first_word",
        'Begin your answer with the word "{word}".',
        checkers.first_word,
        _each("word", "Honestly", "Perhaps", "Today", "Imagine"),
    ),
    Family(
        "postscript",
        'Add a postscript at the end, on a line that begins with "P.S."',
        checkers.postscript,
    ),
    Family("uppercase", "Use only capital letters.", checkers.uppercase),
    Family(
        "numbered_list",
        "Write a numbered list with exactly {n} items.",
        checkers.numbered_list,
        _each("n", 2, 3, 4, 5),
    ),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({f.name: f for f in (*_TRAIN, *_TRANSFER)})
"""All families by name: those of training, then those of transfer."""
TRAIN_FAMILIES = tuple(family.name for family in _TRAIN)
TRANSFER_FAMILIES = tuple(family.name for family in _TRANSFER)


def family_named(name: object, where: str) -> Family:
    """The family of a name.

    Raises:
        InputError: there is none; the line begins with ``where`` and names the nearest.
    """
    if isinstance(name, str) and name in FAMILIES:
        return FAMILIES[name]
    near = get_close_matches(name, FAMILIES, 1) if isinstance(name, str) else []
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(f"{where}: {name!r}, expected one of {', '.join(FAMILIES)}{hint}")


def verify_check(check: Mapping[str, Any], where: str) -> None:
    """Refuses a check that is not one of a rule family with its parameters.

    Raises:
        InputError: its line begins with ``where``.
    """
    if "family" not in check:
        raise InputError(f"{where}: check without family, expected one of {', '.join(FAMILIES)}")
    family = family_named(check["family"], f"{where}: family of check")
    example = family.choices[0]
    for name in example:
        if name not in check:
            raise InputError(f"{where}: check of {family.name} without {name}")
    for name, given in check.items():
        if name == "family":
            continue
        if name not in example:
            takes = ", ".join(example) or "no parameter"
            raise InputError(f"{where}: {name!r} in check of {family.name}, which takes {takes}")
        for expected in _mistakes_of(given, example[name]):
            raise InputError(f"{where}: {name} of check: {given!r}, expected {expected}")


def _mistakes_of(given: object, example: object) -> Iterator[str]:
    """What a parameter should be, if it is not of the type of ``example``."""
    if isinstance(example, int):
        if type(given) is not int or not 1 <= given <= 10**6:
            yield "a whole number of at least 1"
    elif isinstance(example, str):
        if not isinstance(given, str) or not given.strip() or given != given.strip():
            yield "a text without blanks around it"
        elif len(example) == 1 and len(given) != 1:
            yield "one letter"
    elif not (
        isinstance(given, list)
        and 1 <= len(given) <= _MOST_KEYS
        and all(isinstance(key, str) for key in given)
        and len(set(given)) == len(given)
    ):
        yield f"a list of 1 to {_MOST_KEYS} different texts"


def follows(check: Mapping[str, Any], text: str) -> bool:
    """Whether an answer follows the rule of a check that ``verify_check`` accepts.

    An answer without a letter or digit follows none.
    """
    family = FAMILIES[check["family"]]
    parameters = {name: value for name, value in check.items() if name != "family"}
    return checkers.has_content(text) and family.follows(text, **parameters)
