"""A slice of a grid for a figure: every axis that is not drawn is at one value, which is said."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from w2s_ray.report.sentences import shown_value, varying_axes, where
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
    names = [
        name
        for name in varying_axes([one.setting.axes for one in of])
        if name not in (*drawn, *LOSS, "control")
    ]
    first = {name: plainest([one.setting.axes[name] for one in of]) for name in names}
    kept = [one for one in of if all(one.setting.axes[name] == first[name] for name in names)]
    return Slice(kept, where(first, names))


def plainest(values: Sequence[Any]) -> Any:
    """1 where there is no 0 (a temperature, a share), else the smallest; None comes last."""
    return 1.0 if 1.0 in values and 0.0 not in values else min(values, key=_order)


def _order(value: Any) -> tuple[bool, Any]:
    return value is None, shown_value(value) if isinstance(value, str) else value


def by(of: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    """Groups in the order in which they come."""
    groups: dict[K, list[V]] = defaultdict(list)
    for one in of:
        groups[key(one)].append(one)
    return groups
