"""Figures over optimizer steps, from the evaluations that students' artifacts hold."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from w2s_ray.report.answers import Answer
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.slices import by, slice_of
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import VALIDATION
from w2s_ray.store.records import holds

_DRAWN = (
    ("accuracy", "accuracy with the true labels", "accuracy, %"),
    ("weak_agreement", "agreement with the weak labels", "agreement, %"),
)


def curve_figures(answers: Sequence[Answer], store: Store, query: str) -> Iterator[Figure]:
    """Scores on the validation rows against steps; none where only the last step was scored."""
    known = [of for of in answers if of.student is not None and not of.setting.axes["control"]]
    slice_ = slice_of(known)
    keys = [row["key"] for of in slice_.kept for row in of.setting.done]
    curves = dict(zip(keys, _curves(store, keys), strict=True))
    if max((len(of["step"]) for of in curves.values()), default=0) < 2:
        return
    for column, what, title in _DRAWN:
        lines = []
        for loss, own in by(slice_.kept, lambda of: of.setting.name).items():
            points = [
                (step, score)
                for of in own
                for row in of.setting.done
                for step, score in zip(
                    curves[row["key"]]["step"], curves[row["key"]][column], strict=True
                )
                if score is not None
            ]
            at_step = by(points, lambda point: point[0])
            x = sorted(at_step)
            if x:
                means = [fmean(score for _, score in at_step[step]) for step in x]
                lines.append(Line(loss, x, means, dots=points))
        if lines:
            yield Figure(
                f"{column.replace('_', '-')}-by-step",
                f"The students' {what} of the validation rows against the optimizer step, mean "
                f"over seeds; dots are seeds{slice_.note}",
                "lines",
                Axis("optimizer step", is_log=True),
                Axis(title, kind="percent"),
                tuple(lines),
                f"{what.capitalize()} of {len(lines)} losses over {len(lines[0].x)} steps.",
                query,
            )


def _curves(store: Store, keys: Sequence[str]) -> Iterator[dict[str, list[float | None]]]:
    """Columns of each student's ``validation.parquet``; empty ones where it has none."""
    records = store.records(keys)
    present = [key for key, record in records.items() if holds(record, VALIDATION)]
    tables = dict(zip(present, store.tables(present, VALIDATION), strict=True))
    for key in keys:
        if key in tables:
            yield tables[key].to_pydict()
        else:
            yield {name: [] for name in ("step", *(column for column, _, _ in _DRAWN))}
