"""Generated prompts that ask for a text under a constraint: ``generate:constraints``.

A quarter of the topics is held out for test and transfer. Of the other prompts one half is for
align, the other for train, by a hash of each; so a larger split has all prompts of a smaller one,
and the size of one split changes no other. A prompt depends on nothing but its family, topic,
phrasing and parameters, and its place in a split on these and the seed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from w2s_ray.errors import InputError
from w2s_ray.order import hashes, order
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.families import (
    FAMILIES,
    TRAIN_FAMILIES,
    TRANSFER_FAMILIES,
    family_named,
)
from w2s_ray.tasks.topics import TOPICS

VERSION = 1
"""Part of keys: increase it with every change to the generated prompts."""
PHRASINGS = (
    "Write a short text about {topic}.",
    "Write briefly about {topic}.",
    "Tell me something about {topic}.",
    "Describe {topic} in a short answer.",
    "What should I know about {topic}? Keep it short.",
)
_HELD_OUT = 4
"""One of so many topics is held out."""


class Prompt(NamedTuple):
    """A user's message and how its answers are checked.

    Attributes:
        prompt: the message.
        family: name of the check's kind; "" if a file gives none.
        topic: what it is about; "" if a file gives none.
        check: JSON of the check, with sorted names.
    """

    prompt: str
    family: str
    topic: str
    check: str


class Families(NamedTuple):
    """Names of the families to train on, and of those kept for transfer."""

    train: tuple[str, ...]
    transfer: tuple[str, ...]


def families_of(spec: Prompts) -> Families:
    """Those that the spec gives, or the defaults without what it uses otherwise.

    Raises:
        InputError: a name is no family, or none is free for a split.
    """
    given = spec.families
    for name in (*(given.train or ()), *(given.transfer or ())):
        family_named(name, "families")
    train = given.train or tuple(n for n in TRAIN_FAMILIES if n not in (given.transfer or ()))
    transfer = given.transfer or tuple(n for n in TRANSFER_FAMILIES if n not in train)
    if not train or (spec.sizes.transfer and not transfer):
        split = "transfer" if train else "train"
        raise InputError(f"families: no family is free for {split}, expected at least one")
    return Families(train, transfer)


def held_out_topics(seed: int) -> frozenset[str]:
    """The topics that only test and transfer have."""
    ranked = order(TOPICS, seed, "topics")
    return frozenset(TOPICS[position] for position in ranked[: len(TOPICS) // _HELD_OUT])


def generated(spec: Prompts) -> Mapping[str, list[Prompt]]:
    """The prompts of each split, each family as often as the others where it has enough.

    Raises:
        InputError: a split is larger than the prompts that there are for it; or as ``families_of``.
    """
    families = families_of(spec)
    held_out = held_out_topics(spec.seed)
    learned = [topic for topic in TOPICS if topic not in held_out]
    tested = [topic for topic in TOPICS if topic in held_out]
    halves = _halves(_candidates(families.train, learned), spec.seed)
    pools = {
        "align": halves[0],
        "train": halves[1],
        "test": list(_candidates(families.train, tested)),
        "transfer": list(_candidates(families.transfer, tested)),
    }
    sizes = spec.sizes.model_dump()
    return {split: _first(pools[split], sizes[split] or 0, split, spec.seed) for split in SPLITS}


def _candidates(families: Sequence[str], topics: Sequence[str]) -> Iterator[Prompt]:
    """Every prompt of these families and topics."""
    for name in families:
        family = FAMILIES[name]
        for parameters in family.choices:
            check = check_text({"family": name, **parameters})
            constraint = family.sentence(parameters)
            for topic in topics:
                for phrasing in PHRASINGS:
                    text = f"{phrasing.format(topic=topic)} {constraint}"
                    yield Prompt(text, name, topic, check)


def _halves(candidates: Iterator[Prompt], seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """The candidates by the last bit of a hash of each."""
    all_of_them = list(candidates)
    bits = hashes([candidate.prompt for candidate in all_of_them], seed, "halves") & np.uint64(1)
    first = [c for c, bit in zip(all_of_them, bits, strict=True) if not bit]
    second = [c for c, bit in zip(all_of_them, bits, strict=True) if bit]
    return first, second


def _first(pool: list[Prompt], size: int, split: str, seed: int) -> list[Prompt]:
    """The first prompts of each family in an order of hashes, until there are ``size``."""
    if size > len(pool):
        raise InputError(
            f"sizes: {split}: {size:,}, expected at most {len(pool):,}, the prompts of its families"
        )
    ranks: dict[str, int] = {}
    keyed: list[tuple[int, int]] = []
    for position in order([prompt.prompt for prompt in pool], seed, split):
        family = pool[position].family
        ranks[family] = ranks.get(family, -1) + 1
        keyed.append((ranks[family], int(position)))
    return [pool[position] for _, position in sorted(keyed)[:size]]


def check_text(check: Mapping[str, Any]) -> str:
    """A check as JSON with sorted names.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    return json.dumps(dict(check), sort_keys=True, allow_nan=False)
