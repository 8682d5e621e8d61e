"""Figures: the same bytes for the same data, whatever names and gaps are in it."""

import csv
import io
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from tests.report.demo_page import demo_page, figures, misfit
from w2s_ray.report import figure_style as style
from w2s_ray.report.csv_files import figure_csv
from w2s_ray.report.figures import png, svg
from w2s_ray.report.heat_map import LEVELS, ON_DARK, ON_LIGHT, ink_on
from w2s_ray.report.inline_svg import inline_svg
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.page_checks import blocks

ALL = [block for block in blocks(demo_page()) if isinstance(block, Figure)]
CSS = Path(style.__file__).with_name("report.css")
# Full colour vision, and without each kind of cone (Machado, Oliveira and Fernandes 2009).
COLOUR_VISION = {
    "full": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.long
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


@pytest.mark.parametrize("theme", [0, 1])
def test_series_differ_for_readers_who_do_not_see_all_colours(theme: int) -> None:
    """By 20 of CIE Lab's ΔE for the first four, by 12 for all eight, beside marks and dashes."""
    with open(CSS, encoding="utf-8") as file:
        text = file.read()
    named = [re.findall(rf"--series-{i}: (#\w+)", text)[theme] for i in range(1, 9)]
    rgb = np.array([_rgb(colour) for colour in named])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for vision, seen in COLOUR_VISION.items():
        colours = _lab(np.clip(linear @ np.array(seen).T, 0.0, 1.0))
        distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
        assert distances[np.triu_indices(8, 1)].min() >= 12.0, vision
        assert distances[:4, :4][np.triu_indices(4, 1)].min() >= 20.0, vision


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_a_drawing_in_a_page_has_ids_of_its_own_and_colours_by_name() -> None:
    drawn = svg(figures()[0])
    one, other = (inline_svg(drawn, name, 'a "quoted" <alt>') for name in ("one", "other"))
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    for reference in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', one):
        assert set(filter(None, reference)) <= ids[0]
    assert "var(--series-1)" in one and "var(--ink)" in one
    assert style.SERIES[0] not in one and "xmlns" not in one and "http" not in one
    assert 'aria-label="a &quot;quoted&quot; &lt;alt&gt;"' in one


def test_a_scatter_plot_is_a_square_only_where_that_squeezes_no_axis() -> None:
    def size(highest: float) -> tuple[float, float]:
        line = Line("a", [0.0, 1.0], [0.0, highest])
        drawn = svg(Figure("f", "c", "scatter", Axis("x"), Axis("y"), (line,), "alt")).decode()
        clip = re.search(r'<rect x="[^"]+" y="[^"]+" width="([^"]+)" height="([^"]+)"', drawn)
        assert clip
        return float(clip[1]), float(clip[2])

    assert size(0.9)[0] == pytest.approx(size(0.9)[1])
    assert size(0.01)[0] != pytest.approx(size(0.01)[1])


def test_many_points_stay_a_small_part_of_a_page() -> None:
    many = misfit(20_000)
    drawn = svg(many)
    assert drawn == svg(many)
    inlined = inline_svg(drawn, "many", "alt")
    assert len(inlined) < 300_000
    assert 'href="data:image/png;base64,' in inlined


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
