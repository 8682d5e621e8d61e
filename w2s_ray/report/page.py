"""A report as data: sections of texts, tables and figures, before any form is chosen.

What a study says is put into these by ``study_page``; ``markdown``, ``html`` and others write them.
All texts are plain: a writer escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

ColumnKind = Literal["text", "number", "percent", "points"]
FigureKind = Literal["lines", "differences", "scatter", "heat map", "bars", "reliability"]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        query: as of ``Table``, where numbers are in it.
    """

    text: str
    query: str = ""


@dataclass(frozen=True)
class Warning:
    """A paragraph that a reader must not miss."""

    text: str


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        kind: how its values are written: ``percent`` and ``points`` of fractions, with a sign for
            points.
        digits: after the point.
    """

    title: str
    kind: ColumnKind = "text"
    digits: int = 1


@dataclass(frozen=True)
class Cell:
    """A value with its interval, or a text in its place.

    Attributes:
        value: None where there is none; it is then shown as a dash, or as ``text``.
        low, high: of its 95 % interval.
        text: shown instead of the value.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    text: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: of its files, ``[a-z0-9-]+``.
        rows: of as many cells as there are columns.
        query: DuckDB SQL that recomputes its numbers from the Parquet files.
        notes: what a reader must know of it.
    """

    name: str
    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]
    query: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axis:
    """An axis of a figure.

    Attributes:
        kind: as of a column: ``percent`` and ``points`` are of fractions.
        labels: what stands at 0, 1, 2, … instead of numbers, for bars and differences.
    """

    title: str
    is_log: bool = False
    kind: ColumnKind = "number"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A series of points of a figure.

    Attributes:
        name: in the legend.
        x, y: of as many points.
        low, high: of the points' intervals.
        dots: (x, y) of single seeds.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    dots: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: of its files, ``[a-z0-9-]+``.
        kind: ``lines``: series with bands and dots; ``differences``: points with intervals around a
            line at 0; ``scatter``: dots and the line y = x; ``heat map``: ``columns`` of numbers;
            ``bars``: with intervals; ``reliability``: series over (0, 1) and the line y = x.
        lines: its series.
        alt: what it shows, for those who cannot see it.
        query: as of ``Table``.
        columns: of a heat map: ``x``, ``y``, ``value`` and ``resolved``, one entry a cell; the
            values are written as ``value_kind`` says, and cells that are not resolved are hatched.
    """

    name: str
    caption: str
    kind: FigureKind
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    alt: str
    query: str = ""
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    value_kind: ColumnKind = "number"


Block = Text | Warning | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading and a stable address."""

    anchor: str
    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
