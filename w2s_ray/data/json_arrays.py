"""An array of JSON objects as a stream of rows: memory for the largest row, not for the file."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from w2s_ray.data.utf8 import ERRORS, not_utf8, wrong_byte
from w2s_ray.errors import InputError
from w2s_ray.foreign.json_text import check_depth
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.foreign.lines import too_long

_BLOCK = 1 << 20
_ROW, _BLANK, _DEPTH = "row.bytes", "blank.bytes", "json.depth"
_LONGEST_WORD = 16
"""Characters within which a value that is cut off is said to be wrong, if it is no text."""

_SPACE = re.compile(r"[ \t\r\n]*")


class _Window:
    """The part of a text that is being decoded; it grows while a value in it is incomplete.

    Attributes:
        line: line of the current position, from 1.
    """

    def __init__(self, name: str, stream: io.TextIOBase) -> None:
        self.line = 1
        self._name = name
        self._stream = stream
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def next_character(self) -> str:
        """The first character from here that is not white space; empty at the end.

        Raises:
            InputError: there is too much white space.
        """
        blank = 0
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            blank += space.end() - self._at
            if blank > limit(_BLANK):
                raise InputError(f"{self._name}:{self.line}: white space: {exceeded(_BLANK)}")
            self._advance(space.end())
            at = self._at
            if at < len(self._text):
                return self._text[at]
            if not self._grow():
                return ""

    def skip(self) -> None:
        """Skip one character."""
        self._advance(self._at + 1)

    def value(self) -> Any:
        """Decode the value at the position and move behind it.

        Raises:
            InputError: it is too long or nested too deep.
            ValueError: there is no valid value; ``line`` is that of the error.
        """
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError:
                where = f"{self._name}:{self.line}: expected an array of objects"
                raise InputError(f"{where}: {exceeded(_DEPTH)}") from None
            except json.JSONDecodeError as error:
                may_end_later = error.msg.startswith("Unterminated string") or (
                    error.pos > len(self._text) - _LONGEST_WORD
                )
                if may_end_later and len(self._text) - self._at > limit(_ROW):
                    raise too_long(f"{self._name}:{self.line}") from None
                if may_end_later and self._grow():
                    continue
                self.line += self._text.count("\n", self._at, error.pos)
                raise
            text = self._text
            if end - self._at > limit(_ROW):
                raise too_long(f"{self._name}:{self.line}", end - self._at)
            if text.count("[", self._at, end) + text.count("{", self._at, end) > limit(_DEPTH):
                check_depth(value, f"{self._name}:{self.line}")
            self._advance(end)
            return value

    def _advance(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _grow(self) -> bool:
        """Read more of the stream, at least as much as is in the window; False at the end.

        Raises:
            InputError: there is a byte that is not UTF-8.
        """
        block = self._stream.read(max(_BLOCK, len(self._text) - self._at))
        if wrong := wrong_byte(block):
            before = wrong.object[: wrong.start].count(b"\n")
            line = self.line + self._text.count("\n", self._at) + before
            raise not_utf8(f"{self._name}:{line}", wrong)
        self._text = self._text[self._at :] + block
        self._at = 0
        return bool(block)


def rows_of_array(name: str, file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON array, each with ``file:line`` of its beginning.

    Args:
        name: of the file in messages.
        file: its content in UTF-8, which begins with ``[`` (after a byte order mark or spaces).

    Raises:
        InputError: the content is not an array of objects; the message names the line.
    """
    window = _Window(name, io.TextIOWrapper(file, encoding="utf-8-sig", errors=ERRORS))
    try:
        yield from _rows(name, window)
    except InputError:
        raise
    except ValueError as error:  # not JSON
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{name}:{window.line}: expected an array of objects: {what}") from error


def _rows(name: str, window: _Window) -> Iterator[tuple[str, dict[str, Any]]]:
    window.next_character()
    window.skip()
    character = window.next_character()
    while character != "]":
        if character != "{":
            raise _unexpected(name, window, "a JSON object in the array", character)
        yield f"{name}:{window.line}", window.value()
        character = window.next_character()
        if character == ",":
            window.skip()
            character = window.next_character()
            if character == "]":
                raise _unexpected(name, window, "a JSON object after ','", character)
        elif character != "]":
            raise _unexpected(name, window, "',' or ']' after an object", character)
    window.skip()
    if character := window.next_character():
        raise _unexpected(name, window, "the end of the file after the array", character)


def _unexpected(name: str, window: _Window, expected: str, given: str) -> InputError:
    shown = f"'{given}'" if given else "the end of the file"
    return InputError(f"{name}:{window.line}: expected {expected}, given {shown}")
