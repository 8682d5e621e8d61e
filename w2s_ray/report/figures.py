"""Figures as SVG and PNG, with the same bytes for the same data.

Texts stay texts in SVG, so a page can search them and show them in its own font. Nothing is read
from a user's matplotlib settings, no date is written, and names are never read as mathematics.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from w2s_ray.report import figure_style as style
from w2s_ray.report.figure_marks import MARKS
from w2s_ray.report.heat_map import draw_heat_map, heat_map_size
from w2s_ray.report.page import Axis, Figure

DPI = 200
INCHES, SQUARE = (6.6, 3.9), (5.2, 4.8)
WIDEST, INCHES_PER_LABEL = 14.0, 0.3
LEGEND_COLUMNS = 3
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def svg(figure: Figure) -> bytes:
    """A figure as a file of its own."""
    with _settings(figure):
        drawing = _drawing(figure)
        file = io.BytesIO()
        drawing.savefig(file, format="svg", metadata=NO_METADATA)
    return file.getvalue()


def png(figure: Figure) -> bytes:
    """A figure in pixels, on white."""
    with _settings(figure):
        drawing = _drawing(figure)
        file = io.BytesIO()
        drawing.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


@contextmanager
def _settings(figure: Figure) -> Iterator[None]:
    own: Any = {**style.SETTINGS, "svg.hashsalt": f"w2s_ray {figure.name}"}
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Characters that the font lacks; an SVG has them all the same.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r".*constrained_layout not applied.*")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(own)
        yield


def _drawing(figure: Figure) -> Drawing:
    if figure.kind == "heat map":
        drawing = Drawing(figsize=heat_map_size(figure), layout="constrained")
        draw_heat_map(drawing, figure)
        return drawing
    rows = -(-len(figure.lines) // LEGEND_COLUMNS)
    width, height = SQUARE if figure.kind in ("scatter", "reliability") else INCHES
    width = max(width, min(WIDEST, INCHES_PER_LABEL * len(figure.x.labels)))
    drawing = Drawing(figsize=(width, height + 0.2 * max(0, rows - 1)), layout="constrained")
    axes = drawing.add_subplot()
    _axis(axes, figure.x, "x", [x for line in figure.lines for x in line.x])
    _axis(axes, figure.y, "y", [y for line in figure.lines for y in line.y if y is not None])
    if any(y is not None for line in figure.lines for y in line.y):
        MARKS[figure.kind](axes, figure)
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=style.MUTED)
    handles, labels = axes.get_legend_handles_labels()
    if any(labels):
        columns = min(LEGEND_COLUMNS, len(labels))
        drawing.legend(handles, labels, loc="outside lower center", ncols=columns)
    return drawing


def _axis(axes: Axes, axis: Axis, name: str, values: list[float]) -> None:
    title, kind = style.axis_title(axis.title, axis.kind), axis.kind
    ticks = axes.xaxis if name == "x" else axes.yaxis
    is_log = axis.is_log and any(value > 0 for value in values)
    if is_log and (hidden := sum(value <= 0 for value in values)):
        title += f"  ({hidden} points at 0 or below are not on this axis)"
    ticks.set_label_text(title)
    if axis.labels:
        angle: dict[str, Any] = {}
        if name == "x" and sum(len(style.label(text)) + 2 for text in axis.labels) > 70:
            angle = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        ticks.set_ticks(range(len(axis.labels)))
        ticks.set_ticklabels([style.label(text) for text in axis.labels], **angle)
        ticks.grid(False)
        return
    if is_log:
        axes.set_xscale("log") if name == "x" else axes.set_yscale("log")
        positive = [value for value in values if value > 0]
        subs = (1.0, 2.0, 5.0) if max(positive) < 100 * min(positive) else (1.0,)
        ticks.set_major_locator(LogLocator(subs=subs))
        ticks.set_minor_formatter(NullFormatter())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: style.tick(value, kind)))
