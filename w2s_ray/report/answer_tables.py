"""Tables of answers and differences: accuracy, recovered gap, paired tests, power, controls."""

from collections.abc import Sequence

from w2s_ray.report.answers import FAMILY, Answer, Difference, Score
from w2s_ray.report.page import Cell, ColumnKind, Table, TableColumn
from w2s_ray.report.sentences import NAMED, models, shown_value, varying_axes, where
from w2s_ray.report.settings import Setting
from w2s_ray.statistics.power import rows_needed, seeds_needed, smallest_difference

GAPS = (0.005, 0.01, 0.02, 0.05)  # true differences whose price the power table gives
UNKNOWN = "unknown"
PERCENT: ColumnKind = "percent"
POINTS: ColumnKind = "points"


TESTS = (
    TableColumn("difference, points", POINTS),
    TableColumn("p", "number", 4),
    TableColumn("p after Holm", "number", 4),
    TableColumn("p of equivalence", "number", 4),
    TableColumn("verdict"),
    TableColumn("seeds"),
)
"""Columns of a paired difference."""


def _tested(of: Difference) -> tuple[Cell, ...]:
    """The cells of ``TESTS``."""
    compared = of.comparison
    return (
        Cell(compared.estimate.mean, *compared.estimate.interval()),
        Cell(compared.p_value),
        Cell(compared.adjusted),
        Cell(compared.equivalence),
        _text(compared.verdict),
        _text(f"{len(of.seeds)}" + (f", {of.dropped} unpaired" if of.dropped else "")),
    )


def _text(value: str) -> Cell:
    return Cell(text=value)


def _value(setting: Setting, axis: str) -> Cell:
    return Cell(text=shown_value(axis, setting.axes[axis]))


def _score(score: Score | None) -> Cell:
    if score is None:
        return Cell()
    return Cell(score.estimate.mean, score.interval.low, score.interval.high)


def _gap(answer: Answer) -> Cell:
    found = answer.recovered
    if found is None or found.value is None:
        return Cell()
    if not found.is_resolved:
        return Cell(text="gap not resolved")
    if found.gap < 0.0:
        return Cell(text="ceiling below weak model")
    return Cell(found.value, found.low, found.high)


def axes_of(answers: Sequence[Answer]) -> list[str]:
    """The axes that vary, but for the models, which one column names."""
    names = varying_axes([answer.setting.axes for answer in answers])
    hidden = {"loss", "loss_parameters", "control", "weak", "strong", "chain", "combine"}
    return [name for name in names if name not in hidden]


def accuracy_table(answers: Sequence[Answer], *, controls: bool, query: str) -> Table:
    """Accuracies of weak model, student and ceiling with the gap recovered, a row for each setting.

    Args:
        controls: the controls, in place of the students.
    """
    own = [answer for answer in answers if bool(answer.setting.axes["control"]) == controls]
    axes = axes_of(own)
    named = {models(answer.setting.axes) for answer in own}
    many = len(named) > 1
    columns = (
        *([TableColumn("models")] if many else []),
        TableColumn("control" if controls else "loss"),
        *(TableColumn(name.replace("_", " ")) for name in axes),
        *(TableColumn(f"{role}, %", PERCENT) for role in ("weak", "student", "ceiling")),
        TableColumn("gap recovered, %", PERCENT),
        TableColumn("median seed, %", PERCENT),
        TableColumn("middle half of seeds, %", PERCENT),
        TableColumn("seeds"),
    )
    rows = tuple(
        (
            *([_text(models(answer.setting.axes))] if many else []),
            _text(answer.setting.name),
            *(_value(answer.setting, name) for name in axes),
            *(_score(score) for score in (answer.weak, answer.student, answer.ceiling)),
            _gap(answer),
            *(Cell(value) for value in answer.summary or (None, None)),
            _text(_seeds(answer)),
        )
        for answer in own
    )
    return Table(
        "controls" if controls else "accuracy",
        ("Test accuracy of the controls" if controls else "Test accuracy and gap recovered")
        + ("" if many else f": {', '.join(named)}"),
        columns,
        rows,
        query,
        tuple(_notes(own)),
    )


def _seeds(answer: Answer) -> str:
    """What was drawn anew, and what of it is missing or counts for less."""
    cells = answer.setting.rows
    text = str(len(answer.seeds))
    if answer.unit == "weak seed":
        students = len({row["seed"] for row in cells})
        text += " weak" + (f" × {students}" if students < len(cells) else "")
    if answer.missing:
        text += f", {len(cells) - answer.missing} of {len(cells)} cells done"
    if answer.incomplete:
        text += f", {answer.incomplete} without weak model or ceiling"
    if fewer := sum(bool(row["selection_missing"]) for row in cells):
        text += f", {fewer} chosen among fewer"
    if answer.collapsed:
        text += f", {len(answer.collapsed)} collapsed"
    return text


def _notes(answers: Sequence[Answer]) -> list[str]:
    units = {answer.unit for answer in answers if answer.seeds}
    notes = [
        "Intervals are 95 %, over test rows and seeds together; rows of one prompt are one piece "
        "of evidence. The gap recovered is (student − weak) / (ceiling − weak) with Fieller's "
        "interval. The middle half of seeds is their interquartile mean."
    ]
    if "weak seed" in units:
        notes.append("Students of one weak model are averaged: the weak models' seeds vary.")
        notes.append(
            "Where they have the same seeds, these vary too: a × b is a weak models, b seeds."
        )
    if any(answer.shares_seeds for answer in answers):
        notes.append(
            "Students of several weak models have the same seeds, so intervals hold for these "
            "seeds alone."
        )
    if same := sum(answer.setting.same for answer in answers):
        notes.append(
            f"{same:,} further settings have the students of one that is shown, since the axes in "
            "which they differ have no effect on them."
        )
    if any(row["selected_by"] for answer in answers for row in answer.setting.rows):
        notes.append(
            "Ceilings and the control strong_on_weak_rows are chosen by the true labels of the "
            "held-out rows, whatever the rule of the students."
        )
    if any(len(answer.seeds) == 1 for answer in answers):
        notes.append("With one seed an interval holds for that seed's models and new rows alone.")
    if any(answer.one_weak_model for answer in answers):
        notes.append("All seeds share one weak model, so no interval holds for another one.")
    return notes


def difference_table(differences: Sequence[Difference], margin: float, query: str) -> Table:
    """Every loss against the baseline, with tests and verdict."""
    axes = _varying(differences)
    named = {models(of.setting.axes) for of in differences}
    many = len(named) > 1
    columns = (
        *([TableColumn("models")] if many else []),
        TableColumn("loss"),
        TableColumn("against"),
        *(TableColumn(name.replace("_", " ")) for name in axes),
        TableColumn("labels from uniform", "number", 2),
        *TESTS,
    )
    rows = tuple(
        (
            *([_text(models(of.setting.axes))] if many else []),
            _text(of.setting.name),
            _text(of.baseline.name),
            *(_value(of.setting, name) for name in axes),
            Cell(of.confidence),
            *_tested(of),
        )
        for of in differences
    )
    notes = [
        "Differences are paired by rows and seeds at equal other axes. Holm's method holds the "
        f"error within {', '.join(FAMILY)}; equivalent: inside ±{100 * margin:g} points by two "
        "one-sided tests."
    ]
    if any(len(of.seeds) == 2 for of in differences):
        notes.append(
            "Two seeds are too few where seeds differ much: at a spread of 5 points no difference "
            "at all is then called one in 10 % of studies, not in 5 %."
        )
    discordant = [of.discordant for of in differences if of.discordant is not None]
    if discordant:
        notes.append(
            "One seed: p is McNemar's, exact; rows that only one of the two has right: "
            + ", ".join(f"{of.gained} to {of.lost}" for of in discordant[:NAMED])
            + (f" and {len(discordant) - NAMED:,} more." if len(discordant) > NAMED else ".")
        )
    return Table(
        "differences",
        "Differences from the baseline" + ("" if many else f": {', '.join(named)}"),
        columns,
        rows,
        query,
        tuple(notes),
    )


def treatment_table(differences: Sequence[Difference], margin: float, query: str) -> Table:
    """Each treatment of labels or training against the plain way."""
    columns = (
        TableColumn("models"),
        TableColumn("loss"),
        TableColumn("treatment"),
        TableColumn("at"),
        *TESTS,
    )
    axes = _varying(differences)
    rows = []
    for of in differences:
        ours, plain = of.setting.axes, of.baseline.axes
        changed = [name for name in ours if ours[name] != plain.get(name)]
        rest = [name for name in axes if name not in changed]
        rows.append(
            (
                _text(models(ours)),
                _text(of.setting.name),
                _text(where(ours, changed)),
                _text(where(ours, rest)),
                *_tested(of),
            )
        )
    note = (
        "Paired by rows, by seeds and weak models' seeds, at equal other axes, the loss among "
        f"them; Holm within {', '.join(FAMILY)}; equivalent: inside ±{100 * margin:g} points."
    )
    return Table(
        "treatments", "Treatments against the plain way", columns, tuple(rows), query, (note,)
    )


def _varying(differences: Sequence[Difference]) -> list[str]:
    names = varying_axes([of.setting.axes for of in differences])
    hidden = {"loss", "loss_parameters", "weak", "strong", "chain", "combine"}
    return [name for name in names if name not in hidden]


def power_table(differences: Sequence[Difference], query: str) -> Table:
    """What each comparison could have found, and what finding a given difference takes."""
    axes = _varying(differences)
    columns = (
        TableColumn("loss"),
        *(TableColumn(name.replace("_", " ")) for name in axes),
        TableColumn("variance of rows, seeds, rest (points²)"),
        TableColumn("found with 80 %, points", "points"),
        *(TableColumn(f"seeds for {100 * gap:g} points") for gap in GAPS),
        *(TableColumn(f"rows for {100 * gap:g} points") for gap in GAPS),
    )
    return Table(
        "power",
        "Differences that this study could find, and what others need",
        columns,
        tuple(_power_row(of, axes) for of in differences),
        query,
        (
            "From the measured variance components; 80 % power, two-sided 5 %, one comparison. "
            "Seeds: with this study's rows; rows: with its seeds; a dash: no number is enough; "
            "unknown: one seed says nothing of seeds, and equal answers nothing of variances.",
        ),
    )


def _power_row(of: Difference, axes: Sequence[str]) -> tuple[Cell, ...]:
    seeds = len(of.seeds)
    known = of.components.has_seeds
    parts = (of.components.rows, of.components.seeds, of.components.rest)
    is_nothing = not any(parts)  # the two ways gave the same answers
    needed: list[str] = []
    for gap in GAPS:
        needed.append(_count(seeds_needed(of.components, gap, of.groups)) if known else UNKNOWN)
    for gap in GAPS:
        groups = rows_needed(of.components, gap, seeds)
        # Prompts are what counts; this study's have so many rows each.
        needed.append(_count(None if groups is None else round(groups * of.rows / of.groups)))
    found = Cell(smallest_difference(of.components, of.groups, seeds))
    return (
        _text(of.setting.name),
        *(_value(of.setting, name) for name in axes),
        _text(", ".join(f"{1e4 * part:.3g}" for part in parts)),
        Cell(text=UNKNOWN) if is_nothing else found,
        *(Cell(text=UNKNOWN if is_nothing else count) for count in needed),
    )


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"
