"""Figures over pairs of models: gap recovered by weak and strong model, accuracy by size."""

from collections.abc import Sequence
from statistics import fmean

from w2s_ray.report.answers import Answer
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.slices import by, slice_of

_PAIR = ("weak", "strong", "chain")


def gap_figure(answers: Sequence[Answer], loss: str, query: str) -> Figure | None:
    """The gap recovered for each pair of models; None with fewer than two pairs.

    Args:
        loss: whose students are drawn.
    """
    known = [of for of in _known(answers) if of.setting.axes["loss"] == loss]
    parameters = {of.setting.axes["loss_parameters"] for of in known[:1]}
    known = [of for of in known if of.setting.axes["loss_parameters"] in parameters]
    slice_ = slice_of([of for of in known if not of.setting.axes["chain"]], *_PAIR)
    if len(slice_.kept) < 2:
        return None
    found = [(of, of.recovered) for of in slice_.kept if of.recovered is not None]
    return Figure(
        "gap-recovered",
        f"Gap recovered with {loss}, by weak and strong model; hatched where the gap is not "
        f"resolved or the ceiling below the weak model{slice_.note}",
        "heat map",
        Axis("strong model"),
        Axis("weak model"),
        (),
        f"Gap recovered in {len(found)} pairs of models.",
        query,
        {
            "x": [of.setting.axes["strong"] for of, _ in found],
            "y": [of.setting.axes["weak"] for of, _ in found],
            "value": [of.value if of.gap > 0.0 else None for _, of in found],
            "resolved": [of.is_resolved and of.gap > 0.0 for _, of in found],
        },
        "percent",
    )


def size_figure(answers: Sequence[Answer], query: str) -> Figure | None:
    """Accuracy against the strong model's parameters, a line for each loss and weak model."""
    known = [
        of
        for of in _known(answers)
        if not of.setting.axes["chain"] and any(row["parameters"] for row in of.setting.done)
    ]
    slice_ = slice_of(known, *_PAIR)
    if len({of.setting.axes["strong"] for of in slice_.kept}) < 2:
        return None
    lines = []
    groups = by(slice_.kept, lambda of: (of.setting.name, of.setting.axes["weak"]))
    for (loss, weak), own in groups.items():
        sized = sorted(((_parameters(of), of) for of in own), key=lambda pair: pair[0])
        scores = [of.student for _, of in sized if of.student is not None]
        lines.append(
            Line(
                f"{loss}, taught by {weak}",
                [size for size, _ in sized],
                [score.estimate.mean for score in scores],
                [score.interval.low for score in scores],
                [score.interval.high for score in scores],
            )
        )
    return Figure(
        "accuracy-by-parameters",
        f"Student accuracy against the parameters of its model, with 95 % intervals{slice_.note}",
        "lines",
        Axis("parameters", is_log=True),
        Axis("accuracy, %", kind="percent"),
        tuple(lines),
        f"Accuracy of students of {len(lines)} weak models and losses by size.",
        query,
    )


def _known(answers: Sequence[Answer]) -> list[Answer]:
    return [of for of in answers if of.student is not None and not of.setting.axes["control"]]


def _parameters(of: Answer) -> float:
    return fmean(row["parameters"] for row in of.setting.done if row["parameters"])
