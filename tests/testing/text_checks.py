"""Checkers as a researcher would write them, for specs of tests."""

import time
from collections.abc import Mapping
from typing import Any


def has_many_low_letters(check: Mapping[str, Any], prompt: str, text: str) -> bool:
    """True for about half of what a random model writes."""
    return sum(ord(character) % 2 for character in text) * 2 > len(text)


def raises(check: Mapping[str, Any], prompt: str, text: str) -> bool:
    raise KeyError("no such thing")


def loops(check: Mapping[str, Any], prompt: str, text: str) -> bool:
    while True:
        time.sleep(0.01)


def gives(check: Mapping[str, Any], prompt: str, text: str) -> Any:
    return check["value"]
