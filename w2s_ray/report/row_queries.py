"""DuckDB queries over single test rows, from the tables ``results`` and ``predictions``.

Which half of the rows a temperature is fitted on is drawn from the rows' ids, which SQL cannot do:
``recalibration_halves`` (row_id, half) is a table that a reader makes (docs/report.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from w2s_ray.report.queries import Loss, against, quoted, same_axes, where_done
from w2s_ray.report.settings import UnitKind

BINS = 10  # of confidence, equally wide
FEWEST = 20  # answers in a bin that is drawn
_ROUNDS = 60  # of bisection
_SHARPEST = 1000  # as in ``statistics.recalibration``
_SLOPE = (
    "list_sum(list_transform(d, lambda x: x * exp(b * (x - list_max(d))))) "
    "/ list_sum(list_transform(d, lambda x: exp(b * (x - list_max(d)))))"
)
"""Of a row's cross-entropy in b = 1/T; d are its logits less that of the true class."""


@dataclass(frozen=True)
class RowQueries:
    """Queries of one study.

    Attributes:
        results, predictions: files.
        axes: that a setting has, as of ``settings.Setting``.
        chosen: whether a rule chose among cells.
    """

    results: str
    predictions: str
    axes: Sequence[str]
    chosen: bool

    def reliability(self) -> str:
        """Accuracy by bin of confidence, of every setting, seeds together."""
        axes = ", ".join(self.axes)
        return (
            f"with {self._scored()} select {axes}, {_bins('confidence')} from "
            f"'{quoted(self.results)}' join scored using (key) where control = '' and "
            f"{where_done('', self.chosen)} group by all having answers >= {FEWEST} order by all"
        )

    def recalibrated(self) -> str:
        """The same after one temperature for each student, fitted on the other half of the rows.

        The temperature is the root of the slope of the cross-entropy, found by bisection.
        """
        axes = ", ".join(self.axes)
        return (
            f"with recursive {self._scored()}, "
            "logs as (select *, list_transform(probs, lambda p: ln(greatest(p, 2.2250738585072014e-"
            "308))) as z from scored join recalibration_halves using (row_id)), "
            "margins as (select key, half, list(list_transform(z, lambda x: x - z[label + 1])) "
            "as rows from logs group by all), "
            "fit as (select key, half, 0 as round, 0::double as low, coalesce("
            f"{_SHARPEST} / nullif(sqrt(list_avg(list_transform(rows, lambda d: list_sum("
            "list_transform(d, lambda x: x * x)) / (len(d) - 1)))), 0), 0) as high from margins "
            "union all select key, half, round + 1, if(slope > 0, low, b), if(slope > 0, b, high) "
            f"from (select *, list_avg(list_transform(rows, lambda d: {_SLOPE})) as slope from "
            "(select *, (low + high) / 2 as b from fit) join margins using (key, half)) "
            f"where round < {_ROUNDS}), "
            "recalibrated as (select l.key, l.correct, 1 / list_sum(list_transform(z, lambda x: "
            "exp(high * (x - list_max(z))))) as confidence from logs l join fit f on "
            f"f.key = l.key and f.half <> l.half and f.round = {_ROUNDS}) "
            f"select {axes}, {_bins('confidence')} from '{quoted(self.results)}' "
            f"join recalibrated using (key) where control = '' and {where_done('', self.chosen)} "
            f"group by all having answers >= {FEWEST} order by all"
        )

    def components(self, baseline: Loss, unit: UnitKind) -> str:
        """Differences from the baseline with their variance, degrees of freedom and components.

        Rows of one prompt are added up; see ``statistics.decomposition``.

        Args:
            baseline: the loss to compare with.
            unit: what varies.
        """
        file, axes = quoted(self.results), ", ".join(self.axes)
        ours = ", ".join(f"a.{axis}" for axis in self.axes)
        name = "seed" if unit == "seed" else "weak_key"
        of_seeds = "greatest(coalesce(ms_seeds - ms_rest, 0), 0)"
        error = "((ms_rows / n) ** 2 / of_rows + coalesce((ms_seeds / n) ** 2 / (s - 1), 0))"
        return (
            f"with {self._scored()}, "
            f"pairs as (select *, dense_rank() over (order by {axes}) as id from (select {ours}, "
            f"a.{name} as unit, a.key as ours, b.key as theirs from '{file}' a join '{file}' b on "
            f"{same_axes(self.axes)} where {against(baseline, self.chosen)})), "
            "sides as (select id, unit, ours as key, 1 as sign from pairs union all "
            "select id, unit, theirs, -1 from pairs), "
            "each as (select id, unit, prompt, row_id, 2 * avg(sign * correct) as y "
            "from sides join scored using (key) group by all), "
            "overall as (select id, avg(y) as difference, count(distinct unit) as s, "
            "count(distinct prompt) as g, g * s / count(*) as share from each group by id), "
            # A prompt's sum, so scaled that the mean over prompts is that over rows.
            "prompts as (select id, unit, prompt, sum(y - difference) * any_value(share) as c "
            "from each join overall using (id) group by all), "
            # Equal prompts that would be worth as much, less one.
            "independent as (select id, greatest(sum(m) ** 2 / sum(m ** 2) - 1, 1) as of_rows from "
            "(select id, prompt, count(distinct row_id) as m from each group by all) "
            "group by id), "
            "of_prompts as (select id, prompt, avg(c) as of_prompt from prompts group by all), "
            "of_units as (select id, unit, avg(c) as of_unit from prompts group by all), "
            "squares as (select id, count(*) as n, sum(of_prompt ** 2) / any_value(g - 1) as "
            "ms_rows, sum(of_unit ** 2) / nullif(any_value(s - 1), 0) as ms_seeds, "
            "sum((c - of_prompt - of_unit) ** 2) / nullif(any_value((g - 1) * (s - 1)), 0) as "
            "ms_rest from prompts join of_prompts using (id, prompt) join of_units using "
            "(id, unit) join overall using (id) group by id) "
            f"select {axes}, difference, "
            "greatest(ms_rows - coalesce(ms_rest, 0), 0) / s as variance_of_rows, "
            f"{of_seeds} / g as variance_of_seeds, coalesce(ms_rest, 0) as variance_of_rest, "
            f"(ms_rows + {of_seeds}) / n as variance, "
            f"if(s > 1 and variance > 0, greatest(1, variance ** 2 / {error}), of_rows) as "
            "degrees_of_freedom from squares join independent using (id) "
            f"join overall using (id) join (select distinct id, {axes} from pairs) using (id) "
            "order by all"
        )

    def _scored(self) -> str:
        """Students' answers: whether each is right (its share of a tie), and its confidence."""
        top = "list_max(probs)"
        return (
            "scored as (select key, row_id, coalesce(prompt_id, row_id) as prompt, label, probs, "
            f"{top} as confidence, if(probs[label + 1] = {top}, 1 / len(list_filter(probs, lambda "
            f"p: p = {top})), 0) as correct from '{quoted(self.predictions)}' "
            "where model_role = 'student')"
        )


def _bins(confidence: str) -> str:
    return (
        f"least(floor({BINS} * {confidence}), {BINS - 1}) as bin, avg({confidence}) as confidence, "
        "avg(correct) as accuracy, count(*) as answers"
    )
