"""Canonical JSON: one text per value, from which every key is computed.

A key is a hash of a step's whole resolved configuration, so the encoder must give equal values
equal text and different values different text, in every process and Python version. It therefore
accepts exactly the JSON types and refuses everything else by name. A fallback to ``str`` or
``repr`` would let two different configurations share a key.

Decisions: ``1``, ``1.0`` and ``True`` are three values. ``-0.0`` is ``0.0`` (they are equal, and no
formula here distinguishes them). A tuple is a list (JSON has one sequence type; a spec's tuples
come back from a record as lists). Subclasses of the JSON types (``numpy.float64``, ``StrEnum``) are
refused: convert them where they arise.
"""

from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite
from typing import Any

DIGEST_LENGTH = 20


def canonical_json(value: Any) -> str:
    """JSON text of ``value``: keys sorted, no spaces, ASCII, floats as their shortest exact repr.

    Raises:
        TypeError: NaN or infinite numbers, keys that are not text, text with a lone surrogate, or
            any type but dict, list, tuple, str, int, float, bool and None; names the path.
    """
    pieces: list[str] = []
    _encode(value, "", pieces)
    return "".join(pieces)


def digest(value: Any) -> str:
    """The first 20 hex digits (80 bits) of the SHA-256 of ``canonical_json(value)``.

    Among n values the probability of a collision is about n² / 2^81: 4e-13 for a million steps.

    Raises:
        TypeError: As ``canonical_json``.
    """
    return sha256(canonical_json(value).encode("ascii")).hexdigest()[:DIGEST_LENGTH]


def _encode(value: Any, path: str, pieces: list[str]) -> None:
    kind = type(value)
    if kind is str:
        pieces.append(_text(value, path))
    elif kind is float:
        if not isfinite(value):
            raise _refusal(path, f"{value!r} is not a finite number")
        pieces.append(repr(value + 0.0))
    elif kind is bool:
        pieces.append("true" if value else "false")
    elif kind is int:
        pieces.append(repr(value))
    elif value is None:
        pieces.append("null")
    elif kind is dict:
        for name in value:
            if type(name) is not str:
                raise _refusal(path, f"the key {name!r} is a {type(name).__name__}, not a str")
        lead = "{"
        for name in sorted(value):
            inner = f"{path}.{name}"
            pieces.append(f"{lead}{_text(name, inner)}:")
            _encode(value[name], inner, pieces)
            lead = ","
        pieces.append("}" if value else "{}")
    elif kind is list or kind is tuple:
        lead = "["
        for position, item in enumerate(value):
            pieces.append(lead)
            _encode(item, f"{path}[{position}]", pieces)
            lead = ","
        pieces.append("]" if value else "[]")
    else:
        raise _refusal(path, f"a {kind.__module__}.{kind.__qualname__} has no canonical form")


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # two of them would share the text of one emoji
            raise _refusal(path, f"{value!r} contains a lone surrogate") from None
    return _quoted(value)


def _refusal(path: str, reason: str) -> TypeError:
    return TypeError(f"{path.removeprefix('.') or 'value'}: {reason}")
