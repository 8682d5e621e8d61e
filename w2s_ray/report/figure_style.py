"""Colours, marks and settings that all figures share.

Every colour here has a name in ``report.css``, which gives it another value on a dark page. Series
differ in colour, mark, dash and hatch, so they are told apart in grey print and by readers who do
not see all colours.
"""

from typing import Any

from w2s_ray.report.page import ColumnKind, TableColumn
from w2s_ray.report.shown import MINUS, plain, title

PAPER = "#ffffff"
INK = "#1b1b1f"
MUTED = "#55565c"
RULE = "#d9d9de"
SERIES = (
    "#125a98",
    "#b84412",
    "#109d7b",
    "#6e204b",
    "#5c0012",
    "#7577e3",
    "#401459",
    "#686f7b",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")

NAMES = {
    PAPER: "paper",
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES, 1)},
}
"""Colour → its name in ``report.css``."""

LABEL_CHARACTERS = 40
"""Longer names are shortened in the middle; the file of points has them whole."""

SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def label(name: str) -> str:
    """A name that has a place in a figure."""
    text = plain(name)
    if len(text) <= LABEL_CHARACTERS:
        return text
    half = LABEL_CHARACTERS // 2
    return f"{text[: half - 1]}…{text[-half:]}"


def axis_title(text: str, kind: ColumnKind) -> str:
    """The title of an axis with its unit."""
    return title(TableColumn(text, kind))


def tick(value: float, kind: ColumnKind) -> str:
    """A number at an axis."""
    scaled = 100.0 * value if kind in ("percent", "points") else value
    rounded = float(f"{scaled:.6g}")
    mantissa, _, exponent = f"{rounded:.6g}".partition("e")
    text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    sign = "+" if kind == "points" and rounded > 0.0 else ""
    return sign + text.replace("-", MINUS)
