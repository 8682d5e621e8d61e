"""Lines of foreign text, each of bounded length, and no endless run of blank ones."""

from collections.abc import Callable, Iterator
from typing import AnyStr

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit

_ROW, _BLANK = "row.bytes", "blank.lines"


def bounded_lines(name: str, readline: Callable[[int], AnyStr]) -> Iterator[tuple[int, AnyStr]]:
    """The lines of a stream with their numbers, without those that hold nothing but white space.

    Args:
        name: of the file, for messages.
        readline: of the stream; reads at most so many bytes or characters.

    Raises:
        InputError: a line is longer than a row may be, or blank lines follow without end.
    """
    longest, most_blank = limit(_ROW), limit(_BLANK)
    blank = number = 0
    while line := readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise too_long(f"{name}:{number}")
        if line.isspace():
            blank += 1
            if blank > most_blank:
                raise InputError(f"{name}:{number}: blank lines: {exceeded(_BLANK)}")
            continue
        blank = 0
        yield number, line


class RowLines:
    """The lines of a table in which a row may go over several of them, as in quoted cells.

    Args:
        name: of the file, for messages.
        readline: of the stream; reads at most so many characters.
    """

    def __init__(self, name: str, readline: Callable[[int], str]) -> None:
        self._name = name
        self._readline = readline
        self._length = 0

    def start_row(self) -> None:
        """To be called before the first line of each row is read."""
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        """Yields lines; raises ``InputError`` where those of one row are too long together."""
        longest, number = limit(_ROW), 0
        while line := self._readline(longest + 1):
            number += 1
            self._length += len(line)
            if self._length > longest:
                raise too_long(f"{self._name}:{number}")
            yield line


def too_long(where: str, given: int | str = "") -> InputError:
    """The error for a row that is longer than one may be."""
    return InputError(f"{where}: a row too long: {exceeded(_ROW, given)}")
