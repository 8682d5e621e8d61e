"""Prompts with a verifiable constraint: ``generate:constraints``.

A prompt is a phrasing × a topic × a rule of a family × its parameters, a pure function of the seed.
Topics of ``test`` and ``transfer`` are in no other split, and families of ``transfer`` neither.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from w2s_ray.errors import InputError
from w2s_ray.order import hashes
from w2s_ray.spec.families import TRAIN_FAMILIES, TRANSFER_FAMILIES
from w2s_ray.spec.prompts import Prompts
from w2s_ray.tasks.families import FAMILIES
from w2s_ray.tasks.topics import PHRASINGS, TEST_TOPICS, TRAIN_TOPICS

PROMPTS_VERSION = 1
"""Part of the prompts' identity: increase it with every change to the prompts."""


class Prompt(NamedTuple):
    """A prompt, and the check of its answers."""

    prompt_id: str
    prompt: str
    family: str
    topic: str
    check: dict[str, Any]


def generated(spec: Prompts) -> dict[str, list[Prompt]]:
    """The prompts of each split.

    Raises:
        InputError: there are fewer different prompts than a split is to have.
    """
    own: tuple[str, ...] = spec.families or TRAIN_FAMILIES
    other: tuple[str, ...] = spec.transfer_families or TRANSFER_FAMILIES
    both = sorted(set(own) & set(other))
    if spec.has_transfer and both:
        raise InputError(
            f"prompts.transfer_families: given {both[0]}, which is trained on, expected others",
            ("prompts", "transfer_families"),
        )
    sizes = spec.sizes
    trained = _drawn(spec, own, TRAIN_TOPICS, sizes.align + sizes.train, "train")
    return {
        "align": trained[: sizes.align],
        "train": trained[sizes.align :],
        "test": _drawn(spec, own, TEST_TOPICS, sizes.test, "test"),
        "transfer": _drawn(spec, other, TEST_TOPICS, sizes.transfer, "transfer"),
    }


def _drawn(
    spec: Prompts, families: Sequence[str], topics: Sequence[str], count: int, split: str
) -> list[Prompt]:
    """``count`` different prompts, as many of each family as can be."""
    per_family = -(-count // len(families))
    of_family = [_of_family(spec.seed, family, topics, per_family, split) for family in families]
    turns = [of[turn] for turn in range(per_family) for of in of_family if turn < len(of)]
    if len(turns) < count:
        raise InputError(
            f"prompts.sizes: given {count:,} prompts of {len(families)} families, expected at most "
            f"{len(turns):,}, which differ",
            ("prompts", "sizes"),
        )
    return turns[:count]


def _of_family(
    seed: int, family: str, topics: Sequence[str], count: int, split: str
) -> list[Prompt]:
    """The first ``count`` prompts of a family in an order of hashes."""
    every = list(_all_of(family, topics))
    drawn = hashes([prompt.prompt for prompt in every], seed, "constraints", split)
    return [every[n] for n in np.argsort(drawn, kind="stable")[:count]]


def _all_of(family: str, topics: Sequence[str]) -> Iterator[Prompt]:
    rule = FAMILIES[family]
    for topic, phrasing, *values in product(topics, PHRASINGS, *rule.values.values()):
        parameters = dict(zip(rule.values, values, strict=True))
        written = {name: _written(value) for name, value in parameters.items()}
        text = f"{phrasing.format(topic=topic)} {rule.asks.format(**written)}"
        (number,) = hashes([text], "prompt_id")
        yield Prompt(
            f"{family}-{int(number):016x}", text, family, topic, {"family": family, **parameters}
        )


def _written(value: Any) -> str:
    """A parameter as a prompt says it."""
    return ", ".join(f'"{part}"' for part in value) if isinstance(value, list) else str(value)
