"""Who labels for whom: pairs of a weak side and a student, and chains of several students.

A chain is one axis with the pairs: ``[m1, m2]`` is a pair wherever it is written. A longer chain
brings cells with it that it is compared with: every shorter chain that it begins with, and the
direct pair of its ends.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

MEMBERS = "+"  # between the models of an ensemble
LINKS = ">"  # between the models of a chain; neither can be in a name


class Chain(NamedTuple):
    """A weak side, and the students one after the other; with one student it is a pair.

    Attributes:
        weak: a model; the sorted models of an ensemble, ``a+b+c``.
        students: the last is the cell's own.
    """

    weak: str
    students: tuple[str, ...]

    @property
    def column(self) -> str:
        """``m1>m2>m3``; "" for a pair."""
        return "" if len(self.students) == 1 else LINKS.join((self.weak, *self.students))

    def beginnings(self) -> Iterator["Chain"]:
        """The shorter chains that it begins with, the shortest first."""
        for length in range(1, len(self.students)):
            yield Chain(self.weak, self.students[:length])

    @property
    def direct(self) -> "Chain":
        """The pair of its ends."""
        return Chain(self.weak, self.students[-1:])

    def __str__(self) -> str:
        return f"({', '.join((self.weak, *self.students))})"


class _Part(Protocol):
    """A part of a grid that may hold pairs and chains."""

    @property
    def pair(self) -> tuple[tuple[tuple[str, ...], str], ...]: ...
    @property
    def chain(self) -> tuple[tuple[tuple[str, ...], ...], ...]: ...


def written_chains(part: _Part) -> list[Chain]:
    """Its pairs, then its chains; a chain of two that is a pair too is there once."""
    pairs = [Chain(_joined(weak), (strong,)) for weak, strong in part.pair]
    chains = [Chain(_joined(c[0]), tuple(student for (student,) in c[1:])) for c in part.chain]
    return list(dict.fromkeys([*pairs, *chains]))


def all_chains(part: _Part) -> dict[Chain, bool]:
    """Those of ``written_chains`` and the cells that they bring, and whether each is written."""
    written = dict.fromkeys(written_chains(part))
    chains: dict[Chain, bool] = {}
    for chain in written:
        for each in (*chain.beginnings(), chain, chain.direct):
            chains.setdefault(each, each in written)
    return chains


def _joined(members: tuple[str, ...]) -> str:
    return MEMBERS.join(sorted(members))
