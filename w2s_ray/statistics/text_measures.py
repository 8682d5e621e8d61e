"""Length and repetition of sampled answers. Words are parts between blanks."""

from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import fmean

Gram = tuple[str, ...]


def measures(texts: Sequence[str], cut_off: Sequence[bool]) -> dict[str, float | None]:
    """Measures of answers to many prompts; None where there is nothing to measure.

    ``words``: mean length. ``empty``: share without a word. ``cut_off``: share that had not ended.
    ``distinct_2``: distinct bigrams of all bigrams, over all texts together.
    ``repeated_4grams``: mean share of an answer's 4-grams that stood in it before.
    """
    if not texts:
        names = ("words", "empty", "cut_off", "distinct_2", "repeated_4grams")
        return dict.fromkeys(names)
    split = [text.split() for text in texts]
    return {
        "words": fmean(map(len, split)),
        "empty": fmean(not words for words in split),
        "cut_off": fmean(cut_off),
        "distinct_2": distinct(split, 2),
        "repeated_4grams": fmean(repeated(words, 4) for words in split),
    }


def distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Distinct n-grams of all n-grams of several texts (Li et al. 2016); None without any.

    It falls with the number of texts, so it is compared between equally many.
    """
    every = [gram for words in texts for gram in grams(words, n)]
    return len(set(every)) / len(every) if every else None


def repeated(words: Sequence[str], n: int) -> float:
    """Share of a text's n-grams that stood in it before; 0 for a text of fewer words."""
    every = list(grams(words, n))
    return 1.0 - len(set(every)) / len(every) if every else 0.0


def grams(words: Sequence[str], n: int) -> Iterator[Gram]:
    """The n-grams of a text, in order."""
    return zip(*(islice(words, start, None) for start in range(n)), strict=False)
