"""Prompts that are the beginnings of labelled texts, and the texts that classifiers learn from.

Each text is in one of three parts by its hash, whatever the sizes of the splits: the prompts are
made of the first, and the two classifiers learn from one of the others each. So no classifier knows
a text that an answer goes on from, and the two have no text in common.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from w2s_ray.data.sources import fingerprint, read_rows
from w2s_ray.errors import InputError
from w2s_ray.foreign.rows import check_columns, check_label, check_texts
from w2s_ray.order import hashes, order
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.constraints import Prompt
from w2s_ray.tasks.prompt_files import hub_part

TEXTS_VERSION = 1
"""Part of the identity of these prompts and classifiers: increase it when texts are read or parted
otherwise."""
Part = Literal["prompts", "reward", "audit"]
PARTS: tuple[Part, ...] = ("prompts", "reward", "audit")


class Labelled(NamedTuple):
    """A text, and whether its label is the wanted one."""

    text: str
    label: str
    is_wanted: bool


def texts_identity(spec: Prompts) -> dict[str, Any]:
    """What the parts of the texts depend on, but no paths.

    Raises:
        InputError: a source cannot be read.
    """
    assert spec.classifier is not None
    return {
        "content": fingerprint(spec.source, hub_part(spec))["digest"],
        "text": spec.classifier.text,
        "label": spec.classifier.label,
        "wanted": str(spec.classifier.wanted),
        "seed": spec.seed,
        "texts": TEXTS_VERSION,
    }


def labelled_texts(spec: Prompts, part: Part) -> list[Labelled]:
    """The texts of one part, each once, in an order of hashes.

    Raises:
        InputError: a row has no text or label, or there is one class alone; names the row.
    """
    every = dict.fromkeys(_rows(spec))
    if len({of.is_wanted for of in every}) < 2:
        labels = ", ".join(sorted({of.label for of in every})[:9]) or "none"
        assert spec.classifier is not None
        raise InputError(
            f"prompts.classifier.wanted: given {spec.classifier.wanted!r}, expected one of several "
            f"labels of the texts: {labels}",
            ("prompts", "classifier", "wanted"),
        )
    texts = [of.text for of in every]
    parts = (hashes(texts, spec.seed, "part") % len(PARTS)).tolist()
    own = [of for of, number in zip(every, parts, strict=True) if PARTS[number] == part]
    return [own[n] for n in order([of.text for of in own], spec.seed, part)]


def prompts_of_beginnings(spec: Prompts) -> dict[str, list[Prompt]]:
    """The prompts of each split; their family is the label of their text.

    A text that is no longer than its beginning gives none; of equal beginnings the first counts.

    Raises:
        InputError: as ``labelled_texts``, or there are too few.
    """
    assert spec.classifier is not None
    words = spec.classifier.words
    found: dict[str, Prompt] = {}
    for of in labelled_texts(spec, "prompts"):
        split = of.text.split()
        text = " ".join(split[:words])
        if len(split) > words and text not in found:
            (number,) = hashes([text], "prompt_id")
            found[text] = Prompt(f"{int(number):016x}", text, of.label, "", {})
    free, wanted = iter(found.values()), sum(spec.rows(split) for split in SPLITS)
    if len(found) < wanted:
        raise InputError(
            f"prompts.sizes: given {wanted:,} prompts, expected at most {len(found):,}: so many "
            f"different beginnings have the texts of the third that prompts are made of",
            ("prompts", "sizes"),
        )
    return {split: [next(free) for _ in range(spec.rows(split))] for split in SPLITS}


def _rows(spec: Prompts) -> Iterator[Labelled]:
    assert spec.classifier is not None
    for place, row in read_rows(spec.source, hub_part(spec)):
        check_columns(row, place)
        text, label = row.get(spec.classifier.text), row.get(spec.classifier.label)
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{place}: {spec.classifier.text}: given {text!r:.80}, expected a text"
            )
        if not isinstance(label, str | int):
            raise InputError(
                f"{place}: {spec.classifier.label}: given {label!r:.80}, expected a text or a "
                "whole number"
            )
        check_texts([text], place)
        check_label(str(label), place)
        yield Labelled(text.strip(), str(label), str(label) == str(spec.classifier.wanted))
