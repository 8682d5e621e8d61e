"""Settings that leave no rows to learn from, once the number of rows of a data set is known.

That is when the plan is built, where a spec gives the sizes, and else when the data are prepared.
"""

from collections.abc import Iterable

from w2s_ray.errors import InputError
from w2s_ray.objectives.noise import noisy_count
from w2s_ray.plan.configs import LabelTreatment, StudentConfig
from w2s_ray.plan.step import Step

FEWEST_JUDGED = 2  # rows that a probe or neighbours can be fitted on


def check_rows(steps: Iterable[Step], data: str, weak_rows: int) -> None:
    """Checks what the students of a data set learn from.

    Args:
        steps: of the data set.
        data: its name in the spec.
        weak_rows: of its split ``weak``.

    Raises:
        InputError: no row remains after validation, ``train_rows`` or a filter; ``place`` is the
            field of the spec.
    """
    configs = (step.config for step in steps if isinstance(step.config, StudentConfig))
    limits = ((config.validation_rows, config.train_rows, config.labels) for config in configs)
    for of in dict.fromkeys(limits):
        _check(*of, data, weak_rows)


def _check(
    validation: int, train_rows: int | None, labels: LabelTreatment, data: str, rows: int
) -> None:
    if validation >= rows:
        raise InputError(
            f"validation.rows: given {validation}, expected less than {rows:,}, the size of the "
            f"split weak of data {data!r}",
            ("validation", "rows"),
        )
    rows -= validation
    if train_rows is not None and train_rows > rows:
        raise InputError(
            f"grid.train_rows: given {train_rows}, expected at most {rows:,}, the weak rows "
            f"of data set {data!r} that are not held out, or null",
            ("grid", "train_rows"),
        )
    rows = rows if train_rows is None else train_rows
    if labels.judges and rows < FEWEST_JUDGED:
        field = "relabel" if labels.relabel != "none" else "label_filter"
        raise InputError(
            f"grid.{field}: given {' and '.join(sorted(labels.judges))}, expected none where "
            f"students learn from {rows} row of data set {data!r}: judges need {FEWEST_JUDGED}",
            ("grid", field),
        )
    if labels.filter_by != "none" and not noisy_count(rows, labels.keep):
        raise InputError(
            f"grid.label_filter: given {{keep: {labels.keep:g}, by: {labels.filter_by}}}, expected "
            f"a share that keeps one of the {rows:,} rows of data set {data!r} that students "
            "choose from",
            ("grid", "label_filter"),
        )
