"""Unpacking under a budget: what a file may become, in proportion to its size on disk.

A compressed file of four megabytes can become four gigabytes. What is unpacked is counted as it
comes and never gathered, so that neither memory nor time depends on what a file claims of itself.
"""

import io
import math
from typing import BinaryIO

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import limit

_RATIO, _BYTES = "unpacked.ratio", "unpacked.bytes"
_SMALL = 16 << 20
"""Bytes of a file that is unpacked once before its first row is used: it takes a second."""


class Budget:
    """How many bytes may still be unpacked from a file.

    Args:
        name: of the file, at the start of the error's line.
        stored_bytes: its size on disk; None where the file system does not know it, which leaves
            the file unbounded.
    """

    def __init__(self, name: str, stored_bytes: int | None) -> None:
        self._name = name
        self._stored = stored_bytes
        self._left: float = math.inf
        if stored_bytes is not None:
            self._left = max(stored_bytes * limit(_RATIO), limit(_BYTES))

    @property
    def is_checked_first(self) -> bool:
        """Whether all of the file is to be unpacked before a row is used.

        A small file can then not spend minutes on rows that are refused in the end.
        """
        return self._stored is not None and self._stored <= _SMALL

    def spend(self, count: int) -> None:
        """Counts unpacked bytes.

        Raises:
            InputError: there are more than the file's size allows.
        """
        self._left -= count
        if self._left < 0:
            raise InputError(
                f"{self._name}: its {self._stored:,} bytes unpack to more than {limit(_RATIO)} "
                f"times as much, expected at most that or {limit(_BYTES):,} bytes (limits "
                f"{_RATIO}, {_BYTES})"
            )


class BudgetedStream(io.RawIOBase):
    """A stream of unpacked bytes whose number is bounded.

    Args:
        stream: gives the unpacked bytes.
        budget: of the file that they come from.
    """

    def __init__(self, stream: BinaryIO, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fills the buffer; raises ``InputError`` where the budget is spent."""
        count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._budget.spend(count)
        return count


def check_unpacked(stream: BinaryIO, budget: Budget) -> None:
    """Reads unpacked bytes to their end and forgets them.

    Raises:
        InputError: there are more than the file's size allows.
    """
    while block := stream.read(1 << 20):
        budget.spend(len(block))
