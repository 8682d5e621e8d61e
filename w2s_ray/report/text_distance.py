"""What answers look like, and how far a model moved for its rate.

A rate has a price: the distance from the model before training. A method is on the frontier if no
other has at least its rate at no more distance. The untrained model is at distance 0.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from w2s_ray.report.page import Axis, Block, Cell, Figure, Line, Table, TableColumn
from w2s_ray.report.text_arms import ModelPair
from w2s_ray.report.text_queries import measures_query
from w2s_ray.report.text_scores import distance, distance_per_token, perplexity
from w2s_ray.report.text_setting import TextSetting
from w2s_ray.statistics.decomposition import Estimate
from w2s_ray.statistics.equal_length import rates_by_length, thirds_of_length
from w2s_ray.statistics.proportions import proportion_interval

_MEASURED = ("words", "cut_off", "empty", "distinct_2", "repeated_4grams")
_OF_WEAK = ("weak_before", "weak")


class Point(NamedTuple):
    """A method of the strong model on the plane of distance and rate."""

    label: str
    distance: Cell
    per_token: Cell
    rate: Cell
    is_on_frontier: bool = False


def measures(pairs: Sequence[ModelPair], files: tuple[str, str], *, is_kl: bool) -> list[Block]:
    """Tables of length, repetition and distance, and the frontier of each pair of models.

    Args:
        is_kl: whether all answers were sampled at temperature 1 without a nucleus or penalty, so
            that the mean log-ratio is the KL divergence from the model before training.
    """
    name = "KL" if is_kl else "log-ratio"
    blocks: list[Block] = []
    for pair in pairs:
        blocks.append(_looks(pair, files, name))
        blocks += _by_length(pair)
        blocks += _frontier(pair, files, name)
    return blocks


def _looks(pair: ModelPair, files: tuple[str, str], name: str) -> Table:
    columns: tuple[TableColumn, ...] = (
        TableColumn("method"),
        TableColumn("words", "number", 1),
        TableColumn("cut off", "percent"),
        TableColumn("empty", "percent"),
        TableColumn("distinct-2", "number", 2),
        TableColumn("repeated 4-grams", "percent"),
        TableColumn(f"{name}, nats", "number", 2),
        TableColumn(f"{name} per token", "number", 3),
        TableColumn("perplexity", "number", 1),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            Cell(text=setting.label),
            *(Cell(setting.measured(name)) for name in _MEASURED),
            distance(setting.answers),
            distance_per_token(setting.answers),
            perplexity(setting.answers),
        )
        for setting in pair.shown
    )
    notes = [
        "KL: divergence from the model before training (of proxy from the strong model), mean of "
        "log π - log π_ref of answers that are sampled at temperature 1; per token: by all tokens."
        if name == "KL"
        else "Log-ratio: mean of log π - log π_ref of the answers at temperature 1, π_ref the "
        "model before training (of proxy the strong model); per token: by all tokens. It is their "
        "KL divergence only if they are sampled at temperature 1, top_p 1 and without penalty, "
        "which these are not."
    ]
    if all(row[-1].value is None for row in rows):
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    else:
        notes.append(
            "Perplexity: geometric mean over answers, of their text after its prompt under "
            "evaluation.perplexity_model."
        )
    caption = f"{pair.name}: what the answers look like, means over seeds."
    query = measures_query(*files)
    return Table(f"text-{pair.slug}", caption, columns, rows, query, tuple(notes))


def _by_length(pair: ModelPair) -> Iterator[Table]:
    """The rate of each method among its short, middle and long answers."""
    known = [(of, arm) for of in pair.shown if (arm := of.arm()) is not None]
    known = [(of, arm) for of, arm in known if np.isfinite(arm.rewards).any()]
    if not known:
        return
    cuts = thirds_of_length([arm for _, arm in known])
    found = [(setting, rates_by_length(arm, cuts)) for setting, arm in known]
    first, second = (int(cut) for cut in cuts)
    middle = _words(second) if first + 1 == second else f"{first + 1} to {_words(second)}"
    every = (f"up to {_words(first)}", middle, "longer")
    present = [n for n in range(len(every)) if any(thirds[n].share for _, thirds in found)]
    if len(present) < 2:  # all of one length
        return
    titles = [every[n] for n in present]
    rows = tuple(
        (
            Cell(text=setting.label),
            *(
                cell
                for third in (thirds[n] for n in present)
                for cell in (_rate_cell(third.rate), Cell(third.share))
            ),
        )
        for setting, thirds in found
    )
    columns = tuple(
        TableColumn(title, "percent") for name in titles for title in (name, f"{name}, share")
    )
    notes = (
        "Thirds of all answers of these methods together; the share is that of the method's own "
        "answers. Verdicts compare within finer parts of length, and within families of prompts.",
    )
    caption = f"{pair.name}: rate among answers of about one length, 95 % intervals."
    yield Table(
        f"by-length-{pair.slug}", caption, (TableColumn("method"), *columns), rows, "", notes
    )


def _words(count: int) -> str:
    return f"{count} word{'' if count == 1 else 's'}"


def _rate_cell(rate: Estimate | None) -> Cell:
    if rate is None:
        return Cell()
    interval = proportion_interval(rate)
    return Cell(rate.mean, interval.low, interval.high)


def frontier_points(pair: ModelPair) -> list[Point]:
    """The methods of the strong model whose distance is known, the nearest first."""
    known = [
        Point(setting.label, _distance(setting), _per_token(setting), setting.rate_cell("test"))
        for setting in pair.settings
        if setting.method not in _OF_WEAK
    ]
    known = [of for of in known if of.distance.value is not None and of.rate.value is not None]
    points = [of._replace(is_on_frontier=not _beaten(of, known)) for of in known]
    return sorted(points, key=lambda of: of.distance.value or 0.0)


def _distance(setting: TextSetting) -> Cell:
    return Cell(0.0) if setting.method == "untrained" else distance(setting.answers)


def _per_token(setting: TextSetting) -> Cell:
    return Cell(0.0) if setting.method == "untrained" else distance_per_token(setting.answers)


def _beaten(point: Point, others: Sequence[Point]) -> bool:
    """Whether another one has at least the rate at no more distance, and is not equal in both."""
    d, r = point.distance.value, point.rate.value
    assert d is not None and r is not None
    return any(
        of.distance.value <= d
        and of.rate.value >= r
        and (of.distance.value, of.rate.value) != (d, r)
        for of in others
        if of.distance.value is not None and of.rate.value is not None
    )


def _frontier(pair: ModelPair, files: tuple[str, str], name: str) -> Iterator[Block]:
    """Rate against distance from the reference, as a table and a figure of the same numbers."""
    points = frontier_points(pair)
    if len(points) < 2:
        return
    of_reference = f"{name} to the untrained strong model"
    columns = (
        TableColumn("method"),
        TableColumn(f"{name}, nats", "number", 2),
        TableColumn(f"{name} per token", "number", 3),
        TableColumn("rate", "percent"),
        TableColumn("on the frontier"),
    )
    rows = tuple(
        (
            Cell(text=of.label),
            of.distance,
            of.per_token,
            of.rate,
            Cell(text="yes" if of.is_on_frontier else "no"),
        )
        for of in points
    )
    notes = (
        "On the frontier: no other method has at least this rate at no more distance, of the "
        "means alone. best_of_n has no log-probabilities of its own.",
    )
    caption = f"{pair.name}: rate against {of_reference}."
    query = measures_query(*files)
    yield Table(f"frontier-{pair.slug}", caption, columns, rows, query, notes)
    yield Figure(
        f"frontier-figure-{pair.slug}",
        caption,
        "lines",
        Axis(f"{of_reference}, nats"),
        Axis("rate", kind="percent"),
        tuple(
            Line(
                of.label,
                [of.distance.value or 0.0],
                [of.rate.value],
                [of.rate.low],
                [of.rate.high],
            )
            for of in points
        ),
        "One point for each method: rate with its interval against distance.",
        query,
    )
