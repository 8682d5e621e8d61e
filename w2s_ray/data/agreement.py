"""English number agreement as generated preference pairs: ``generate:agreement``.

The task needs no download, and a pretrained model does much better on it than its own first blocks.
Each row is a minimal pair: a sentence in which two words agree in number, and the same sentence
with one of the two words in the other number. The grammatical sentence is ``chosen``.

Three design decisions make it a test of grammar with a gap between a weak and a strong model:

* No word gives the answer away. The number is a fair coin flip, and so is which of the two words is
  changed, so every form is correct as often as it is wrong, and a bag of words stays at chance.
* No position gives it away. In half of the rows the two words may have nouns of either number
  between them and a tail after them, so the last token, where the model is read out, depends on the
  error only through attention.
* The other half (pronouns, and determiners next to their noun; no tail) can be judged from
  neighbouring words at the end of the sentence, which a weak model does with confidence.

A row is a pure function of (seed, row index): no random generator, no library version.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from w2s_ray.data import agreement_words as words
from w2s_ray.data.agreement_words import Forms

T = TypeVar("T")

VERSION = 1
"""Part of the data's fingerprint: increase it with every change to the generated rows."""


class Draws:
    """Independent uniform choices: the digits of a 512-bit hash of the stream."""

    def __init__(self, *stream: int | str) -> None:
        text = "\x1f".join(map(str, ("agreement", VERSION, *stream)))
        self._number = int.from_bytes(blake2b(text.encode()).digest(), "little")

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``, from the next digit."""
        self._number, digit = divmod(self._number, len(options))
        return options[digit]


class Frame(NamedTuple):
    """A sentence in which the number of the two agreeing words is still open.

    Attributes:
        lead: before the first agreeing word.
        controller: the word that determines the number.
        between: between the two words; may be empty.
        target: the word that has to agree.
        rest: after the second word; may be empty.
        tails: phrases that can end the sentence.
    """

    lead: str
    controller: Forms
    between: str
    target: Forms
    rest: str
    tails: Sequence[str]

    def sentence(self, controller: int, target: int, tail: str) -> str:
        """The sentence with the numbers (0 singular, 1 plural) of its two words, and a tail."""
        parts = [self.lead, self.controller[controller], self.between, self.target[target]]
        text = " ".join(part for part in [*parts, self.rest, tail] if part)
        return f"{text[0].upper()}{text[1:]}."


MakeFrame = Callable[[Draws], Frame]
Predicate = Callable[[Draws, str, Forms, str], Frame]
"""Completes a sentence from its lead, its subject and the words after the subject."""
Between = Callable[[Draws], str]
"""Draws the words between a subject and its predicate."""


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


def _with_noun(predicate: Predicate, between: Between, draw: Draws) -> Frame:
    return predicate(draw, "the", draw.pick(words.PERSONS), between(draw))


def _with_pronoun(predicate: Predicate, draw: Draws) -> Frame:
    lead = f"{_person(draw)} {draw.pick(words.SAID)} that"
    return predicate(draw, lead, draw.pick(words.PRONOUNS), "")


def _reflexive(between: Between, draw: Draws) -> Frame:
    nouns, singular = draw.pick([(words.MEN, "himself"), (words.WOMEN, "herself")])
    verb = f"{between(draw)} {draw.pick(words.DID_TO_SELF)}".strip()
    return Frame("the", draw.pick(nouns), verb, (singular, "themselves"), "", words.PAST_TAILS)


def _determiner(adjectives: int, draw: Draws) -> Frame:
    thing, determiner = draw.pick(words.THINGS), draw.pick(words.DETERMINERS)
    chosen: list[str] = []
    for _ in range(adjectives):
        chosen.append(draw.pick([word for word in words.ADJECTIVES if word not in chosen]))
    if adjectives and draw.pick((True, False)):
        lead, rest = "", draw.pick(words.FELL)
    else:
        lead, rest = f"{_person(draw)} {draw.pick(words.TREATED)}", ""
    return Frame(lead, determiner, " ".join(chosen), thing, rest, words.PAST_TAILS)


PHENOMENA: dict[str, MakeFrame] = {
    "verb_adjacent": partial(_with_noun, _verb, _adjacent),
    "verb_across_preposition": partial(_with_noun, _verb, _preposition),
    "verb_across_subject_relative": partial(_with_noun, _verb, _subject_relative),
    "verb_across_object_relative": partial(_with_noun, _verb, _object_relative),
    "verb_of_pronoun": partial(_with_pronoun, _verb),
    "auxiliary_adjacent": partial(_with_noun, _auxiliary, _adjacent),
    "auxiliary_across_preposition": partial(_with_noun, _auxiliary, _preposition),
    "auxiliary_across_subject_relative": partial(_with_noun, _auxiliary, _subject_relative),
    "auxiliary_across_object_relative": partial(_with_noun, _auxiliary, _object_relative),
    "auxiliary_of_pronoun": partial(_with_pronoun, _auxiliary),
    "reflexive_adjacent": partial(_reflexive, _adjacent),
    "reflexive_across_preposition": partial(_reflexive, _preposition),
    "reflexive_across_subject_relative": partial(_reflexive, _subject_relative),
    "determiner_adjacent": partial(_determiner, 0),
    "determiner_across_adjective": partial(_determiner, 1),
    "determiner_across_adjectives": partial(_determiner, 2),
}
LOCAL = ["verb_of_pronoun", "auxiliary_of_pronoun", "determiner_adjacent"]
"""Phenomena that two neighbouring words decide; about half of the rows."""


def pair(seed: int, index: int) -> dict[str, str]:
    """The row at ``index``: prompt (empty), chosen, rejected, phenomenon."""
    draw = Draws(seed, index)
    name = draw.pick(LOCAL if draw.pick(range(5)) < 2 else list(PHENOMENA))
    frame = PHENOMENA[name](draw)
    tail = draw.pick(frame.tails) if name not in LOCAL and draw.pick((True, False)) else ""
    number = draw.pick((0, 1))
    wrong = draw.pick([(1 - number, number), (number, 1 - number)])
    return {
        "prompt": "",
        "chosen": frame.sentence(number, number, tail),
        "rejected": frame.sentence(*wrong, tail),
        "phenomenon": name,
    }


def generate(seed: int, n: int) -> Iterator[dict[str, str]]:
    """``n`` rows without a repeated sentence, so that no split shares one with another.

    More rows begin with the same rows as fewer.
    """
    seen: set[str] = set()
    index = 0
    while len(seen) < 2 * n:
        row = pair(seed, index)
        index += 1
        sentences = (row["chosen"], row["rejected"])
        if seen.isdisjoint(sentences):
            seen.update(sentences)
            yield row
