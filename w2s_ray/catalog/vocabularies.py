"""Vocabularies of ``tokenizer.json`` files, read without the library that runs them."""

from pathlib import Path
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.foreign.json_file import read_json_object
from w2s_ray.foreign.limits import exceeded, limit

TOKENIZER = "tokenizer.json"
_IDS = "model.vocabulary"


def read_vocabulary(file: Path, place: str) -> int:
    """One more than the largest id of a tokenizer.

    Args:
        file: a ``tokenizer.json``.
        place: the tokenizer, at the start of the error's line.

    Raises:
        InputError: the file cannot be read, or has no vocabulary of distinct words with ids.
    """
    place = f"{place}: {file.name}"
    content = read_json_object(file, "tokenizer.bytes", place)
    model = content.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(words, dict | list):
        raise InputError(f"{place}: expected a readable tokenizer.json, with a vocabulary")
    added = content.get("added_tokens", [])
    if not isinstance(added, list):
        raise InputError(f"{place}: added_tokens: expected a list of tokens")
    ids = list(words.values()) if isinstance(words, dict) else list(range(len(words)))
    ids += [token.get("id") if isinstance(token, dict) else token for token in added]
    return 1 + max((_checked(number, place) for number in ids), default=-1)


def _checked(number: Any, place: str) -> int:
    if type(number) is not int or number < 0:
        raise InputError(f"{place}: given the id {number!r}, expected a whole number from 0")
    if number >= limit(_IDS):
        raise InputError(f"{place}: {exceeded(_IDS, number + 1)}")
    return number
