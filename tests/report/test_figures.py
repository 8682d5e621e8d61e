"""Figures: the same bytes for the same data, whatever names and gaps are in it."""

import csv
import io
import math
import re
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import pytest

from tests.report.demo_page import demo_page, figures
from w2s_ray.report import figure_style as style
from w2s_ray.report.csv_files import figure_csv
from w2s_ray.report.figures import png, svg
from w2s_ray.report.heat_map import LEVELS, ON_DARK, ON_LIGHT, ink_on
from w2s_ray.report.inline_svg import inline_svg
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.page_checks import blocks

ALL = [block for block in blocks(demo_page()) if isinstance(block, Figure)]
CSS = "w2s_ray/report/report.css"


@pytest.mark.parametrize("figure", ALL, ids=lambda figure: figure.name)
def test_a_figure_has_the_same_bytes_again_and_warns_of_nothing(figure: Figure) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = svg(figure), png(figure)
        with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other"}):
            assert (svg(figure), png(figure)) == first
    assert b"date" not in first[0]
    ElementTree.fromstring(first[0])


def test_texts_of_a_figure_stay_texts() -> None:
    drawn = svg(figures()[0]).decode()
    for text in ("forward_kl", "learning rate", "accuracy (%)", "1e−5"):
        assert f">{text}</text>" in drawn


def test_missing_points_and_empty_series_are_drawn_as_gaps() -> None:
    axis = Axis("x", is_log=True)
    gaps = Line("a", [0.0, 1.0, 2.0], [None, 0.5, math.nan], [None, 0.4, None], [None, 0.6, None])
    none = Line("b", [1.0], [None])
    for kind in ("lines", "differences", "scatter", "bars", "reliability"):
        both = Figure("f", "c", kind, axis, Axis("y"), (gaps, none), "alt")
        assert "1 points at 0 or below are not on this axis" in svg(both).decode()
        for lines in ((none,), ()):
            assert b">no data</text>" in svg(replace(both, lines=lines))
    empty = Figure(
        "f",
        "c",
        "heat map",
        axis,
        axis,
        (),
        "alt",
        columns={"x": ["a"], "y": ["b"], "value": [None], "resolved": [False]},
    )
    assert b"hatched: not resolved" in svg(empty)


def test_unresolved_cells_are_hatched_and_keep_their_number() -> None:
    (grid,) = (figure for figure in figures() if figure.kind == "heat map")
    resolved = replace(grid, columns={**grid.columns, "resolved": [True] * 12})
    one_missing = svg(resolved).decode()
    assert "hatched" not in one_missing
    hatched = re.compile(r"fill: url\(#h\w+\)")
    assert len(hatched.findall(one_missing)) == 1  # without a value
    assert len(hatched.findall(svg(grid).decode())) == 3


def test_numbers_in_a_heat_map_have_the_contrast_of_level_aa() -> None:
    colours = matplotlib.colormaps["cividis"].resampled(LEVELS)
    for level in range(LEVELS):
        cell = colours(level)
        assert _contrast(cell[:3], _rgb(ink_on(cell))) >= 4.5
    assert {ink_on(colours(0)), ink_on(colours(LEVELS - 1))} == {ON_DARK, ON_LIGHT}


def test_marks_of_series_stand_out_from_the_page_in_both_themes() -> None:
    """3:1, WCAG's least for graphics; every colour has a name in the style sheet."""
    with open(CSS, encoding="utf-8") as file:
        themes = re.findall(r"--paper: (#\w+);[^}]*", file.read())
    assert themes == ["#ffffff", "#16181b", "#16181b"]
    with open(CSS, encoding="utf-8") as file:
        rules = [rule for rule in re.split(r"[{}]", file.read()) if "--paper: #" in rule]
    assert rules[1].split() == rules[2].split()
    for rule in rules:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rule))
        assert set(style.NAMES.values()) <= set(colours)
        for number in range(1, len(style.SERIES) + 1):
            ratio = _contrast(_rgb(colours[f"series-{number}"]), _rgb(colours["paper"]))
            assert ratio >= 3.0, number
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rules[0]))
    assert {colour: light[name] for colour, name in style.NAMES.items()} == {
        colour: colour for colour in style.NAMES
    }


def test_a_drawing_in_a_page_has_ids_of_its_own_and_colours_by_name() -> None:
    drawn = svg(figures()[0])
    one, other = (inline_svg(drawn, name, 'a "quoted" <alt>') for name in ("one", "other"))
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    for reference in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', one):
        assert set(filter(None, reference)) <= ids[0]
    assert "var(--series-1)" in one and "var(--ink)" in one
    assert "#0072b2" not in one and "xmlns" not in one and "http" not in one
    assert 'aria-label="a &quot;quoted&quot; &lt;alt&gt;"' in one


def test_the_file_behind_a_figure_has_every_point_and_dot() -> None:
    rates, _, _, grid, _, deciles = figures()
    rows = list(csv.DictReader(io.StringIO(figure_csv(rates))))
    assert len(rows) == 4 * (4 + 20)
    assert float(rows[0]["y"]) == rates.lines[0].y[0]
    assert [row["mark"] for row in rows[:5]] == ["point"] * 4 + ["dot"]
    assert len(list(csv.DictReader(io.StringIO(figure_csv(grid))))) == 12
    assert next(csv.DictReader(io.StringIO(figure_csv(deciles))))["label"] == "1"


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    def luminance(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
