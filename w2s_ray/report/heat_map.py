"""Heat maps: a colour and a number in each cell, unresolved and missing cells hatched."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from w2s_ray.report import figure_style as style
from w2s_ray.report.page import Axis, Figure
from w2s_ray.report.shown import number

LEVELS = 32  # of colour; more would turn the colour bar into an image
NUMBERS = 16  # columns up to which cells have their number in them
ON_DARK, ON_LIGHT = "#fefefe", "#000000"  # the same on a dark page, since the cells are
EMPTY = "#efeff2"
COLOURS = "cividis"  # in order of brightness too, and for all kinds of colour vision
DIGITS = {"number": 2, "percent": 1, "points": 1, "text": 2}
BOX = {"edgecolor": "none", "pad": 1.0}
TEXT: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8.5}


def heat_map_size(figure: Figure) -> tuple[float, float]:
    """Width and height in inches, by the number of columns and rows."""
    columns, rows = (len(_labels(figure, name)) for name in ("x", "y"))
    longest = max((len(style.label(str(y))) for y in figure.columns["y"]), default=0)
    return (
        min(12.0, max(4.6, 2.0 + 0.07 * longest + 0.62 * columns)),
        min(12.0, max(2.8, 1.5 + 0.42 * rows)),
    )


def draw_heat_map(drawing: Drawing, figure: Figure) -> None:
    """Draws the cells, their numbers, and a colour bar with the unit."""
    axes = drawing.add_subplot()
    xs, ys = _labels(figure, "x"), _labels(figure, "y")
    finite = [v for v in figure.columns["value"] if v is not None and math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    scale = Normalize(low, high) if high > low else Normalize(low - 0.05, low + 0.05)
    colours = matplotlib.colormaps[COLOURS].resampled(LEVELS)
    _grid(axes, figure.x, xs, "x")
    _grid(axes, figure.y, ys, "y")
    rows = zip(*(figure.columns[name] for name in ("x", "y", "value", "resolved")), strict=True)
    for x, y, value, is_resolved in rows:
        place = (xs.index(x), ys.index(y))
        is_number = value is not None and math.isfinite(value)
        fill: Any = colours(scale(value)) if is_number else EMPTY
        axes.add_patch(_square(place, fill))
        ink = ink_on(fill) if is_number else ON_LIGHT
        if not is_resolved or not is_number:
            axes.add_patch(_hatching(place, ink))
        if len(xs) <= NUMBERS:
            text = number(value, figure.value_kind, DIGITS[figure.value_kind]) if is_number else "–"
            axes.text(*place, text, color=ink, bbox={**BOX, "facecolor": fill}, **TEXT)
    if finite:
        _bar(drawing, axes, scale, figure)
    if not all(figure.columns["resolved"]):
        axes.set_title("hatched: not resolved", fontsize=9, color=style.MUTED, loc="left")


def ink_on(fill: Sequence[float]) -> str:
    """The colour of a number in a cell, with a contrast of 4.5 or more."""
    return ON_DARK if _luminance(fill) < 0.18 else ON_LIGHT


def _bar(drawing: Drawing, axes: Axes, scale: Normalize, figure: Figure) -> None:
    colours = matplotlib.colormaps[COLOURS].resampled(LEVELS)
    bar = drawing.colorbar(ScalarMappable(scale, colours), ax=axes, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: style.tick(value, figure.value_kind))
    )


def _labels(figure: Figure, name: str) -> list[Any]:
    """What is on an axis: numbers in order, words as they come first."""
    found = list(dict.fromkeys(figure.columns[name]))
    is_numeric = all(isinstance(value, int | float) for value in found)
    return sorted(found) if is_numeric else found


def _grid(axes: Axes, axis: Axis, labels: Sequence[Any], name: str) -> None:
    ticks = axes.xaxis if name == "x" else axes.yaxis
    texts = [
        style.label(label) if isinstance(label, str) else style.tick(label, axis.kind)
        for label in labels
    ]
    angle: dict[str, Any] = {}
    if name == "x" and max(map(len, texts), default=0) > 7:
        angle = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    ticks.set_ticks(range(len(labels)))
    ticks.set_ticklabels(texts, **angle)
    ticks.set_label_text(style.axis_title(axis.title, axis.kind))
    ticks.grid(False)
    ticks.set_tick_params(length=0)
    limits = (-0.5, max(len(labels), 1) - 0.5)
    if name == "x":
        axes.set_xlim(*limits)
    else:
        axes.set_ylim(*limits)
    axes.spines[:].set_visible(False)


def _square(place: tuple[int, int], fill: Any) -> Rectangle:
    corner = (place[0] - 0.49, place[1] - 0.48)
    return Rectangle(corner, 0.98, 0.96, facecolor=fill, edgecolor="none")


def _hatching(place: tuple[int, int], ink: str) -> Rectangle:
    corner = (place[0] - 0.49, place[1] - 0.48)
    return Rectangle(
        corner, 0.98, 0.96, facecolor="none", edgecolor=ink, hatch="////", linewidth=0, alpha=0.75
    )


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour, as contrast is defined by it (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
