"""English agreement as preference pairs, made on the spot: ``generate:agreement``.

A task that needs no download and on which a pretrained model knows much more than its own first
blocks do. Each row is a minimal pair: one sentence in which two words agree in number, and the
same sentence with one of those two words in the other number. The sound sentence is ``chosen``.

Three decisions make it a test of grammar with room between a weak and a strong model:

* No word gives the answer away. Number is a fair coin, and so is which of the two words is
  spoilt, so every form is right as often as it is wrong and a bag of words stays at chance.
* No position gives it away. In half of the rows the two words may have nouns of either number
  between them and a tail after them, so that the last token, where a model is read out, knows of
  the fault only what attention has brought there.
* The other half (pronouns, determiners beside their noun; no tail) is judged from neighbouring
  words at the end of the sentence: that much a weak model knows with confidence.

A row is a pure function of (seed, number of the row): no random generator, no library version.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from w2s_ray.data import agreement_words as words
from w2s_ray.data.agreement_words import Forms

T = TypeVar("T")

VERSION = 1
"""Part of the data's fingerprint: raise it with every change of what is generated."""


class Draws:
    """Independent uniform choices: the digits of one 512-bit hash of the stream."""

    def __init__(self, *stream: int | str) -> None:
        text = "\x1f".join(map(str, ("agreement", VERSION, *stream)))
        self._number = int.from_bytes(blake2b(text.encode()).digest(), "little")

    def pick(self, options: Sequence[T]) -> T:
        self._number, digit = divmod(self._number, len(options))
        return options[digit]


class Frame(NamedTuple):
    """A sentence but for the numbers (0 singular, 1 plural) of the two words that must agree."""

    lead: str
    controller: Forms
    between: str
    target: Forms
    rest: str
    tails: Sequence[str]

    def sentence(self, controller: int, target: int, tail: str) -> str:
        parts = [self.lead, self.controller[controller], self.between, self.target[target]]
        text = " ".join(part for part in [*parts, self.rest, tail] if part)
        return f"{text[0].upper()}{text[1:]}."


Make = Callable[[Draws], Frame]
Head = Callable[[Draws, str, Forms, str], Frame]  # lead, subject, what stands between
Distance = Callable[[Draws], str]


def _person(draw: Draws) -> str:
    return f"the {draw.pick(draw.pick(words.PERSONS))}"


def _adjacent(draw: Draws) -> str:
    return ""


def _preposition(draw: Draws) -> str:
    noun = draw.pick(draw.pick([words.THINGS, words.PLACES, words.PERSONS]))
    return f"{draw.pick(words.BESIDE)} the {draw.pick(noun)}"


def _subject_relative(draw: Draws) -> str:
    return f"who {draw.pick(words.KNEW)} {_person(draw)}"


def _object_relative(draw: Draws) -> str:
    number = draw.pick((0, 1))
    return f"that the {draw.pick(words.PERSONS)[number]} {draw.pick(words.KNOWS)[number]}"


def _verb(draw: Draws, lead: str, subject: Forms, between: str) -> Frame:
    return Frame(lead, subject, between, draw.pick(words.ACTS), "", words.TAILS)


def _auxiliary(draw: Draws, lead: str, subject: Forms, between: str) -> Frame:
    forms, predicates = draw.pick(words.AUXILIARIES)
    return Frame(lead, subject, between, forms, draw.pick(predicates), words.TAILS)


def _of_noun(kind: Head, distance: Distance) -> Make:
    return lambda draw: kind(draw, "the", draw.pick(words.PERSONS), distance(draw))


def _of_pronoun(kind: Head) -> Make:
    def frame(draw: Draws) -> Frame:
        lead = f"{_person(draw)} {draw.pick(words.SAID)} that"
        return kind(draw, lead, draw.pick(words.PRONOUNS), "")

    return frame


def _reflexive(distance: Distance) -> Make:
    def frame(draw: Draws) -> Frame:
        nouns, one = draw.pick([(words.MEN, "himself"), (words.WOMEN, "herself")])
        verb = f"{distance(draw)} {draw.pick(words.DID_TO_SELF)}".strip()
        return Frame("the", draw.pick(nouns), verb, (one, "themselves"), "", words.PAST_TAILS)

    return frame


def _determiner(adjectives: int) -> Make:
    def frame(draw: Draws) -> Frame:
        thing, determiner = draw.pick(words.THINGS), draw.pick(words.DETERMINERS)
        chosen: list[str] = []
        for _ in range(adjectives):
            chosen.append(draw.pick([word for word in words.ADJECTIVES if word not in chosen]))
        if adjectives and draw.pick((True, False)):
            lead, rest = "", draw.pick(words.FELL)
        else:
            lead, rest = f"{_person(draw)} {draw.pick(words.TREATED)}", ""
        return Frame(lead, determiner, " ".join(chosen), thing, rest, words.PAST_TAILS)

    return frame


PHENOMENA: dict[str, Make] = {
    "verb_adjacent": _of_noun(_verb, _adjacent),
    "verb_across_preposition": _of_noun(_verb, _preposition),
    "verb_across_subject_relative": _of_noun(_verb, _subject_relative),
    "verb_across_object_relative": _of_noun(_verb, _object_relative),
    "verb_of_pronoun": _of_pronoun(_verb),
    "auxiliary_adjacent": _of_noun(_auxiliary, _adjacent),
    "auxiliary_across_preposition": _of_noun(_auxiliary, _preposition),
    "auxiliary_across_subject_relative": _of_noun(_auxiliary, _subject_relative),
    "auxiliary_across_object_relative": _of_noun(_auxiliary, _object_relative),
    "auxiliary_of_pronoun": _of_pronoun(_auxiliary),
    "reflexive_adjacent": _reflexive(_adjacent),
    "reflexive_across_preposition": _reflexive(_preposition),
    "reflexive_across_subject_relative": _reflexive(_subject_relative),
    "determiner_adjacent": _determiner(0),
    "determiner_across_adjective": _determiner(1),
    "determiner_across_adjectives": _determiner(2),
}
LOCAL = ["verb_of_pronoun", "auxiliary_of_pronoun", "determiner_adjacent"]
"""Judged from two neighbouring words; about half of the rows."""


def pair(seed: int, index: int) -> dict[str, str]:
    """Row number ``index``: prompt (empty), chosen, rejected, phenomenon."""
    draw = Draws(seed, index)
    name = draw.pick(LOCAL if draw.pick(range(5)) < 2 else list(PHENOMENA))
    frame = PHENOMENA[name](draw)
    tail = draw.pick(frame.tails) if name not in LOCAL and draw.pick((True, False)) else ""
    number = draw.pick((0, 1))
    spoilt = draw.pick([(1 - number, number), (number, 1 - number)])
    return {
        "prompt": "",
        "chosen": frame.sentence(number, number, tail),
        "rejected": frame.sentence(*spoilt, tail),
        "phenomenon": name,
    }


def generate(seed: int, n: int) -> Iterator[dict[str, str]]:
    """``n`` rows in which no sentence stands twice, sound or not, so that no sentence of one split
    is met in another. A longer run begins with the rows of a shorter one."""
    seen: set[str] = set()
    index = 0
    while len(seen) < 2 * n:
        row = pair(seed, index)
        index += 1
        sentences = (row["chosen"], row["rejected"])
        if seen.isdisjoint(sentences):
            seen.update(sentences)
            yield row
