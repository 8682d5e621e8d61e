"""The vocabulary of ``generate:agreement``.

Excluded are verbs whose plural form is also a past tense ("they read"), nouns with one form for
both numbers, and any noun with which the ungrammatical sentence has a valid reading.
"""

Forms = tuple[str, str]
"""A word in singular and plural."""


def _nouns(words: str) -> list[Forms]:
    return [(word, f"{word}s") for word in words.split()]


def _verbs(words: str) -> list[Forms]:
    return [(f"{word}s", word) for word in words.split()]


def _phrases(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.split("|")]


PERSONS = [
    *_nouns("author banker boy chef doctor driver farmer girl guard guest lawyer manager"),
    *_nouns("neighbor nurse officer painter pilot senator singer student teacher writer"),
    ("child", "children"),
    ("man", "men"),
    ("woman", "women"),
]
MEN = [*_nouns("actor boy brother father king monk prince son uncle waiter"), ("man", "men")]
WOMEN = [
    *_nouns("daughter girl mother nun queen sister"),
    ("actress", "actresses"),
    ("princess", "princesses"),
    ("waitress", "waitresses"),
    ("woman", "women"),
]
PRONOUNS = [("he", "they"), ("she", "they"), ("he", "we"), ("she", "we")]
THINGS = [
    *_nouns("book bottle chair cup hat lamp letter map mirror painting picture plate ring rug"),
    *_nouns("shirt table ticket vase"),
    ("box", "boxes"),
    ("knife", "knives"),
]
PLACES = _nouns("barn bridge car desk fence garden house lake shop station tower tree truck wall")

ACTS = _verbs("laugh smile sleep wait work sing dance shout swim cook run walk talk rest smoke")
KNOWS = _verbs("admire know like remember trust see hear love hate avoid help thank")
KNEW = _phrases(
    "admired|helped|followed|hated|thanked|greeted|called|visited|liked|met|saw|talked to"
    "|laughed at|waited for"
)
SAID = _phrases("said|knew|hoped|thought|believed|claimed|wrote|heard")
DID_TO_SELF = _phrases(
    "hurt|blamed|praised|saw|described|defended|introduced|distracted|helped|admired"
)
TREATED = _phrases("bought|sold|found|lost|cleaned|painted|moved|wanted|hid|broke|took|carried")
FELL = _phrases("fell|disappeared|vanished|shook|burned|moved|broke")

ADJECTIVES = _phrases("old|new|small|large|green|white|dirty|heavy|strange|cheap|lovely")
STATES = _phrases("ready|tired|happy|famous|hungry|late|angry|quiet|busy|afraid")
DONE = _phrases("arrived|left|finished|changed|returned|slept|started|vanished")
AUXILIARIES = [(("is", "are"), STATES), (("was", "were"), STATES), (("has", "have"), DONE)]
DETERMINERS = [("this", "these"), ("that", "those")]
BESIDE = _phrases("near|behind|beside|next to|in front of")

TAILS = _phrases(
    "every day|in the morning|after the long game|before dinner|on the weekend|near the river"
    "|in the old kitchen|in the rain|at night|in the afternoon|for a very long time"
    "|because of the news|without any reason|all the time|after the meeting|during the summer"
    "|in the city|once again|as usual|with great joy"
)
PAST_TAILS = _phrases(
    "yesterday|last night|in the morning|after the long game|before dinner|in the kitchen"
    "|a few days ago|near the river|because of the news|without any reason|last week"
    "|during the storm|after the meeting|in the city|once again|on the way home"
)
