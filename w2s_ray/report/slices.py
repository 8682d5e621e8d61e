"""A slice of a grid for a figure: every axis that is not drawn is at one value, which is said."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from w2s_ray.report.sentences import varying_axes, where
from w2s_ray.report.settings import LOSS, Setting


class HasSetting(Protocol):
    """An answer or a difference."""

    @property
    def setting(self) -> Setting: ...


T = TypeVar("T", bound=HasSetting)
K = TypeVar("K")
V = TypeVar("V")


class Slice(NamedTuple, Generic[T]):
    """What is drawn, and the values of the axes that are not: "" if none of them varies."""

    kept: list[T]
    at: str

    @property
    def note(self) -> str:
        """The end of a caption."""
        return f" ({self.at})." if self.at else "."


def slice_of(of: Sequence[T], *drawn: str) -> Slice[T]:
    """Those whose axes, but for the loss and the drawn ones, are at their plainest value."""
    kept, at = narrowed(of, lambda one: one.setting.axes, (*drawn, *LOSS, "control"))
    return Slice(kept, at)


def narrowed(
    of: Sequence[V], axes_of: Callable[[V], Mapping[str, Any]], drawn: Sequence[str]
) -> tuple[list[V], str]:
    """Those at one value of every axis but the drawn ones, and these values in words.

    One axis after the other, each at its plainest value among what the ones before have left: so
    something always is.
    """
    names = [name for name in varying_axes([dict(axes_of(one)) for one in of]) if name not in drawn]
    kept, first = list(of), {}
    for name in names:
        first[name] = plainest([axes_of(one)[name] for one in kept])
        kept = [one for one in kept if axes_of(one)[name] == first[name]]
    return kept, where(first, names)


def plainest(values: Sequence[Any]) -> Any:
    """What does nothing ("none", None, a temperature or share of 1), else the smallest.

    Of the ways to combine an ensemble it is the mean, which plain pairs have too.
    """
    for plain in ("none", "", "mean", None):
        if plain in values:
            return plain
    return 1.0 if 1.0 in values and 0.0 not in values else min(values)


def uneven(seeds: Iterable[Sequence[int]]) -> str:
    """What a caption says where means of one line are over different seeds.

    Args:
        seeds: numbers of seeds of the points of each line.
    """
    counts = [(count, max(line)) for line in seeds for count in line]
    fewer = sum(count < most for count, most in counts)
    return f" {fewer} of {len(counts)} means are over fewer seeds than others." if fewer else ""


def by(of: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    """Groups in the order in which they come."""
    groups: dict[K, list[V]] = defaultdict(list)
    for one in of:
        groups[key(one)].append(one)
    return groups
