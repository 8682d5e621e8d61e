"""How each kind of figure draws its series: lines, differences, scatter, bars, reliability."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from w2s_ray.report import figure_style as style
from w2s_ray.report.page import Figure, FigureKind, Line

BAR_WIDTH = 0.8
"""Of all bars at one place, in units of the axis."""
DODGE = 0.4
"""Over which points at one label are spread."""

SQUEEZED = 3.0
"""How many times wider a square may make an axis of a scatter plot."""
POINTS = 2000
"""More of one series are drawn as an image within the SVG, which stays small."""

Numbers = NDArray[np.float64]


class Points(NamedTuple):
    """The points of a series, with NaN for what is missing."""

    x: Numbers
    y: Numbers
    low: Numbers
    high: Numbers

    def errors(self) -> Numbers:
        """Distances of the ends of the intervals, (2, points), as matplotlib wants them."""
        ends = np.stack([self.y - self.low, self.high - self.y])
        return np.maximum(np.nan_to_num(ends), 0.0)


def draw_lines(axes: Axes, figure: Figure) -> None:
    """Lines through means, bands for their intervals, a small dot for each seed."""
    for number, line in enumerate(figure.lines):
        points = _points(line, np.argsort(np.asarray(line.x, dtype=float), kind="stable"))
        colour = _colour(number)
        axes.fill_between(points.x, points.low, points.high, color=colour, alpha=0.16, linewidth=0)
        _dots(axes, line, colour, 0.0)
        dash = style.DASHES[number % len(style.DASHES)]
        axes.plot(points.x, points.y, linestyle=dash, label=style.label(line.name), **_mark(number))


def draw_differences(axes: Axes, figure: Figure) -> None:
    """Points with intervals around a line at 0."""
    axes.axhline(0.0, color=style.INK, linewidth=0.9, zorder=1)
    count = len(figure.lines)
    for number, line in enumerate(figure.lines):
        shift = DODGE * ((number + 0.5) / count - 0.5) if figure.x.labels and count > 1 else 0.0
        _with_intervals(axes, line, number, shift)
    if figure.x.labels:
        axes.set_xlim(-0.6, len(figure.x.labels) - 0.4)


def draw_scatter(axes: Axes, figure: Figure) -> None:
    """Points and the line y = x; a square where neither axis would be squeezed in it."""
    for number, line in enumerate(figure.lines):
        _with_intervals(axes, line, number, 0.0)
    of_x, of_y = axes.get_xlim(), axes.get_ylim()
    low, high = min(of_x[0], of_y[0]), max(of_x[1], of_y[1])
    is_square = high - low <= SQUEEZED * min(of_x[1] - of_x[0], of_y[1] - of_y[0])
    _diagonal(axes, low, high, is_square)
    if not is_square:
        axes.set_xlim(of_x)
        axes.set_ylim(of_y)


def draw_bars(axes: Axes, figure: Figure) -> None:
    """Bars from 0 with intervals, side by side where there are several series."""
    width = BAR_WIDTH / len(figure.lines)
    for number, line in enumerate(figure.lines):
        points = _points(line)
        at = points.x + width * (number + 0.5) - BAR_WIDTH / 2
        axes.bar(
            at,
            np.nan_to_num(points.y),
            width * 0.92,
            facecolor=_colour(number),
            edgecolor=style.PAPER,
            hatch=style.HATCHES[number % len(style.HATCHES)],
            linewidth=0,
            label=style.label(line.name),
        )
        if len(line.low) or len(line.high):
            _whiskers(axes, points._replace(x=at), style.INK)
    axes.axhline(0.0, color=style.MUTED, linewidth=0.9)


def draw_reliability(axes: Axes, figure: Figure) -> None:
    """How often a class was right against how probable it was said to be, and the line y = x."""
    draw_lines(axes, figure)
    _diagonal(axes, 0.0, 1.0)


def _with_intervals(axes: Axes, line: Line, number: int, shift: float) -> None:
    points = _points(line)
    points = points._replace(x=points.x + shift)
    _dots(axes, line, _colour(number), shift)
    if len(line.low) or len(line.high):
        _whiskers(axes, points, _colour(number))
    axes.plot(
        points.x,
        points.y,
        linestyle="none",
        rasterized=len(points.x) > POINTS,
        label=style.label(line.name),
        **_mark(number),
    )


def _dots(axes: Axes, line: Line, colour: str, shift: float) -> None:
    """Single seeds, small."""
    if line.dots:
        x, y = np.asarray(line.dots, dtype=np.float64).T
        is_image = len(x) > POINTS
        axes.plot(x + shift, y, ".", color=colour, alpha=0.55, markersize=3.5, rasterized=is_image)


def _whiskers(axes: Axes, points: Points, colour: str) -> None:
    axes.errorbar(
        points.x,
        points.y,
        yerr=points.errors(),
        fmt="none",
        ecolor=colour,
        elinewidth=1.2,
        capsize=2.5,
    )


def _diagonal(axes: Axes, low: float, high: float, is_square: bool = True) -> None:
    """The line y = x; in a square with equal limits on both axes, if both are of one scale."""
    ends = np.linspace(low, high, 200)
    axes.plot(ends, ends, color=style.MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    if is_square and axes.get_xscale() == axes.get_yscale():
        low = max(low, ends[1]) if axes.get_xscale() == "log" and low <= 0 else low
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")


def _points(line: Line, order: Any = slice(None)) -> Points:
    missing = [None] * len(line.x)
    columns: Sequence[Sequence[float | None]] = (
        line.x,
        line.y,
        line.low if len(line.low) else missing,
        line.high if len(line.high) else missing,
    )
    return Points(*(np.asarray(values, dtype=np.float64)[order] for values in columns))


def _colour(number: int) -> str:
    return style.SERIES[number % len(style.SERIES)]


def _mark(number: int) -> dict[str, Any]:
    return {
        "color": _colour(number),
        "marker": style.MARKERS[number % len(style.MARKERS)],
        "markeredgecolor": style.PAPER,
        "markeredgewidth": 0.6,
    }


MARKS: Mapping[FigureKind, Callable[[Axes, Figure], None]] = {
    "lines": draw_lines,
    "differences": draw_differences,
    "scatter": draw_scatter,
    "bars": draw_bars,
    "reliability": draw_reliability,
}
"""Kind of figure → how its series are drawn."""
