"""A page with every kind of block and names that try to break it."""

import math
import random
from itertools import product

from w2s_ray.report.page import (
    Axis,
    Cell,
    Figure,
    Line,
    Page,
    Section,
    Table,
    TableColumn,
    Text,
    Warning,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "a\"b'c`d\\e",
    "line\nbreak\rand\ttab\u2028end",
    "\u202eright to left\u202c",
    "$\\frac{1}{0}$ 50% & #1 _x_ ^ ~ {y}",
    "| pipe | [link](javascript:alert(1)) **bold**",
    "https://example.org/x?a=1&b=2",
    "=1+1",
    "\ud800 half, 中文, עברית, é, 🙂",
)
LOSSES = ("forward_kl", "reverse_kl", "reverse_ce", "jensen_shannon")


def demo_page(rows: int = 120) -> Page:
    """A page of every kind of block; ``rows`` in its long table."""
    return Page(
        "Which loss learns more from a weak teacher?",
        "Study demo, 1,000 test rows × 5 seeds",
        (
            Section("answer", "The answer", (*_texts(), main_table())),
            Section("figures", "Figures", tuple(figures())),
            Section("cells", "All cells", (long_table(rows),)),
            Section("names", "Names from anywhere", hostile_blocks()),
        ),
    )


def _texts() -> tuple[Text | Warning, ...]:
    return (
        Text(
            "Reverse KL is better than forward KL by 1.2 points (95 % interval 0.4 to 2.0; 1,000 "
            "rows × 5 seeds), with rates chosen by weak cross-entropy on 500 held-out rows.",
            "SELECT difference FROM 'comparisons.parquet'",
        ),
        Warning("The best rate of reverse KL stands at the edge of its grid: 1e-5."),
    )


def main_table() -> Table:
    columns = (
        TableColumn("loss"),
        TableColumn("accuracy", "percent"),
        TableColumn("difference", "points"),
        TableColumn("PGR", "number", 2),
        TableColumn("rate", "number", 4),
        TableColumn("seeds", "number", 0),
        TableColumn("verdict"),
    )
    rows = tuple(
        (
            Cell(text=loss),
            Cell(0.71 + 0.01 * i, 0.70 + 0.01 * i, 0.72 + 0.01 * i),
            Cell(0.012 * (i - 1), 0.012 * (i - 1) - 0.008, 0.012 * (i - 1) + 0.008),
            Cell(text="gap not resolved") if i == 3 else Cell(0.4 + 0.1 * i, 0.2, 0.9),
            Cell(10.0 ** -(i + 2)),
            Cell(5),
            Cell(text="undecided") if i else Cell(),
        )
        for i, loss in enumerate(LOSSES)
    )
    query = "SELECT loss, avg(student_accuracy)\nFROM 'results/demo.parquet'\nGROUP BY loss"
    return Table(
        "main",
        "Accuracy by loss, with 95 % intervals",
        columns,
        rows,
        query,
        ("Means over seeds.",),
    )


def long_table(rows: int) -> Table:
    columns = (
        TableColumn("data"),
        TableColumn("pair"),
        TableColumn("loss"),
        TableColumn("noise", "number", 1),
        TableColumn("rate", "number", 5),
        TableColumn("seed", "number", 0),
        TableColumn("weak", "percent"),
        TableColumn("student", "percent"),
        TableColumn("gain", "points"),
        TableColumn("PGR", "number", 2),
        TableColumn("key"),
    )
    draw = random.Random(0)
    body = tuple(
        (
            Cell(text="agreement"),
            Cell(text=f"SmolLM2-135M → SmolLM2-{360 + i % 7}M"),
            Cell(text=LOSSES[i % 4]),
            Cell(0.1 * (i % 5)),
            Cell(10.0 ** -(i % 5)),
            Cell(i),
            Cell(0.6 + 0.1 * draw.random(), 0.55, 0.75),
            Cell(0.7 + 0.1 * draw.random(), 0.65, 0.85),
            Cell(0.2 * draw.random() - 0.1, -0.1, 0.1),
            Cell(draw.random(), 0.0, 1.0),
            Cell(text=f"{draw.getrandbits(48):012x}"),
        )
        for i in range(rows)
    )
    return Table("cells", "Every cell", columns, body, "SELECT * FROM 'results/demo.parquet'")


def figures() -> list[Figure]:
    """One of each kind."""
    return [rates(), phase(), misfit(), pgr(), reliability(), deciles()]


def rates() -> Figure:
    draw = random.Random(1)
    at = [1e-5, 1e-4, 1e-3, 1e-2]
    lines = []
    for i, loss in enumerate(LOSSES):
        y = [0.6 + 0.05 * math.sin(i + k) for k in range(4)]
        pairs = zip(at, y, strict=True)
        dots = [(x, mean + draw.gauss(0, 0.01)) for x, mean in pairs for _ in range(5)]
        lines.append(Line(loss, at, y, *around(y, 0.02), dots))
    return Figure(
        "rates",
        "Accuracy against rate, per loss",
        "lines",
        Axis("learning rate", is_log=True),
        Axis("accuracy", kind="percent"),
        tuple(lines),
        "Accuracy of four losses at four rates.",
        "SELECT 1",
    )


def phase() -> Figure:
    y = [-0.002, 0.001, 0.006, 0.014, 0.019, 0.024]
    line = Line("reverse − forward KL", [0.05, 0.1, 0.2, 0.3, 0.4, 0.45], y, *around(y, 0.006))
    return Figure(
        "phase",
        "Paired difference against confidence",
        "differences",
        Axis("mean |w − ½|"),
        Axis("difference", kind="points"),
        (line,),
        "The difference grows with confidence.",
    )


def misfit(points: int = 30) -> Figure:
    draw = random.Random(2)
    x = [0.2 * draw.random() for _ in range(points)]
    lines = tuple(
        Line(name, x, [value + draw.gauss(0, 0.02) for value in x])
        for name in ("training rows", "test rows")
    )
    axes = (Axis("misfit", kind="percent"), Axis("gain", kind="percent"))
    caption = "Gain against misfit"
    return Figure("misfit", caption, "scatter", *axes, lines, "Points around the line.")


def pgr() -> Figure:
    sizes = ("135M", "360M", "1.7B", "7B")
    pairs = [(weak, strong) for weak, strong in product(sizes, sizes) if weak != strong]
    columns = {
        "x": [strong for _, strong in pairs],
        "y": [weak for weak, _ in pairs],
        "value": [None if i == 5 else 0.1 * i - 0.1 for i in range(len(pairs))],
        "resolved": [i % 4 != 1 for i in range(len(pairs))],
    }
    axes = (Axis("strong"), Axis("weak"))
    caption, alt = "PGR, weak × strong", "A grid of twelve pairs."
    return Figure("pgr", caption, "heat map", *axes, (), alt, columns=columns)


def reliability() -> Figure:
    x = [0.05 + 0.1 * i for i in range(10)]
    lines = []
    for name, power in (("raw", 1.4), ("recalibrated", 1.05)):
        y = [value**power for value in x]
        lines.append(Line(name, x, y, *around(y, 0.04)))
    axes = (Axis("confidence"), Axis("accuracy"))
    alt = "Two curves near the line."
    return Figure("reliability", "Reliability", "reliability", *axes, tuple(lines), alt)


def deciles() -> Figure:
    lines = []
    for name, start in (("correction", 0.1), ("inheritance", 0.4)):
        y = [start + 0.03 * i for i in range(10)]
        lines.append(Line(name, range(10), y, *around(y, 0.03)))
    return Figure(
        "deciles",
        "Correction and inheritance",
        "bars",
        Axis("decile of weak confidence", labels=tuple(map(str, range(1, 11)))),
        Axis("share", kind="percent"),
        tuple(lines),
        "Bars by decile.",
    )


def around(y: list[float], width: float) -> tuple[list[float], list[float]]:
    return [value - width for value in y], [value + width for value in y]


def hostile_blocks() -> tuple[Text | Warning | Table | Figure, ...]:
    rows = tuple((Cell(text=name), Cell(0.1 * i)) for i, name in enumerate(HOSTILE))
    many = tuple((Cell(text=name), Cell(float(i))) for i in range(8) for name in HOSTILE)
    columns = (TableColumn(HOSTILE[0]), TableColumn(HOSTILE[5], "percent"))
    axis = Axis(HOSTILE[5], labels=HOSTILE)
    line = Line(HOSTILE[0], list(range(len(HOSTILE))), [0.1 * i for i in range(len(HOSTILE))])
    bars = Figure(
        "hostile", HOSTILE[1], "bars", axis, Axis(HOSTILE[1]), (line,), HOSTILE[1], HOSTILE[1]
    )
    grid = {"x": list(HOSTILE), "y": list(HOSTILE), "value": [1.0] * 10, "resolved": [True] * 10}
    return (
        *(Text(name) for name in HOSTILE),
        Warning(HOSTILE[1]),
        Table("hostile", HOSTILE[0], columns, rows, HOSTILE[1], (HOSTILE[0],)),
        Table("hostile-long", HOSTILE[1], columns, many, "```\n" + HOSTILE[0]),
        bars,
        Figure("hostile-map", HOSTILE[0], "heat map", axis, axis, (), HOSTILE[0], columns=grid),
    )
