"""The answer in a few sentences, generated from verdicts.

A word like *better* stands only where a test gave it. What was chosen with true labels, one seed,
one rate, one weak model or a best value at the edge of its grid is said before the numbers.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from w2s_ray.data.counting import counted
from w2s_ray.report.answers import FAMILY, Answer, Difference
from w2s_ray.report.collapsed import named
from w2s_ray.report.selected import chosen_over, rule, shown
from w2s_ray.report.settings import Row
from w2s_ray.spec.chains import LINKS, MEMBERS

NAMED = 3  # differences that a sentence names
FAMILIES = 20  # that get sentences
_NOT_GIVEN = {"train_rows": "all", "readout_block": "last"}


def points(value: float) -> str:
    """A difference of accuracies in points, with its sign."""
    return f"{100.0 * value:+.1f}".replace("-", "−")


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100.0 * value:.1f}".replace("-", "−")


def models(axes: dict[str, Any]) -> str:
    """The models from the weak one to the student, with the rule of an ensemble."""
    chain = axes["chain"] or f"{axes['weak']}{LINKS}{axes['strong']}"
    weak, *students = chain.split(LINKS)
    combined = f" ({axes['combine']})" if MEMBERS in weak else ""
    return " → ".join([f"{weak}{combined}", *students])


def where(axes: dict[str, Any], varying: Sequence[str]) -> str:
    """The values of the axes that vary in a study: ``noise ratio 0.2, label temperature 0.5``."""
    values = ((name, axes[name]) for name in varying if name not in ("loss", "loss_parameters"))
    return ", ".join(
        f"{name.replace('_', ' ')} {shown_value(name, value)}" for name, value in values
    )


def shown_value(axis: str, value: Any) -> str:
    """The value of an axis in words."""
    if value is None:
        return _NOT_GIVEN.get(axis, "none")
    return f"{value:g}" if isinstance(value, float) else str(value)


def varying_axes(of: Sequence[dict[str, Any]]) -> list[str]:
    """The axes that have more than one value."""
    return [] if not of else [name for name in of[0] if len({str(a[name]) for a in of}) > 1]


def conclusions(
    answers: Sequence[Answer], differences: Sequence[Difference], rows: Sequence[Row], margin: float
) -> Iterator[str]:
    """The sentences, one family of comparisons after the other.

    Args:
        rows: of ``results``.
        margin: of equivalence.
    """
    students = [of for of in answers if not of.setting.axes["control"]]
    axes_of = [of.setting.axes for of in students]
    varying = [name for name in varying_axes(axes_of) if name not in FAMILY]
    families = dict.fromkeys(_family(of.setting.axes) for of in students)
    for family in list(families)[:FAMILIES]:
        own = [of for of in differences if _family(of.setting.axes) == family]
        of_family = [of for of in students if _family(of.setting.axes) == family]
        axes = of_family[0].setting.axes
        name = f"{axes['data']}, {models(axes)}, {axes['trainable']}"
        yield f"{name}: {_of_differences(own, varying, margin)}{_uncompared(own, of_family)}"
        yield f"{name}: {_of_gap(of_family)}"
    if len(families) > FAMILIES:
        yield f"{len(families) - FAMILIES:,} more families are in the tables."
    yield _of_choice(rows)


def _family(axes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(axes[name] for name in FAMILY)


def _of_differences(own: Sequence[Difference], varying: Sequence[str], margin: float) -> str:
    if not own:
        return "there is no pair of losses to compare at equal other axes."
    counts = Counter(of.comparison.verdict for of in own)
    baseline = own[0].baseline.name
    seeds = sorted({len(of.seeds) for of in own})
    over = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    rows = ", ".join(f"{count:,}" for count in sorted({of.rows for of in own}))
    plural = "" if seeds == [1] else "s"
    units = " or ".join(sorted({f"{of.unit}{plural}" for of in own}))
    within = f"{100 * margin:g} point" + ("" if margin == 0.01 else "s")
    text = (
        f"of {counted(len(own), 'comparison')} with {baseline} over {rows} test rows and {over} "
        f"{units}, {counts['better']} {'is' if counts['better'] == 1 else 'are'} better, "
        f"{counts['worse']} worse, "
        f"{counts['equivalent']} equivalent within {within} and {counts['undecided']} undecided "
        "(Holm over all of them)."
    )
    claimed = [of for of in own if of.comparison.verdict in ("better", "worse")]
    claimed.sort(key=lambda of: -abs(of.comparison.estimate.mean))
    largest = [_named(of, varying, len(seeds) > 1) for of in claimed[:NAMED]]
    if largest:
        text += " Largest: " + "; ".join(largest) + "."
    if seeds == [1]:
        text += " One seed: these verdicts hold for this seed's models and new rows."
    elif 1 in seeds:
        alone = sum(len(of.seeds) == 1 for of in own)
        text += f" {alone:,} of them over one seed: they hold for its models and new rows."
    if shared := sum(of.shares_seeds for of in own):
        text += (
            f" In {shared:,} of them students of several weak models have the same seeds: they "
            "hold for these seeds."
        )
    return text


def _uncompared(own: Sequence[Difference], of_family: Sequence[Answer]) -> str:
    """How many finished settings have no counterpart with the baseline's loss."""
    if not own:
        return ""
    base = own[0].baseline.axes["loss"]
    compared = {id(side) for of in own for side in (of.setting, of.baseline)}
    alone = sum(
        of.setting.axes["loss"] != base and bool(of.seeds) and id(of.setting) not in compared
        for of in of_family
    )
    if not alone:
        return ""
    return f" {counted(alone, 'setting')} without a counterpart of {base} not compared."


def _named(of: Difference, varying: Sequence[str], says_seeds: bool) -> str:
    """A claim with its interval and conditions.

    Args:
        says_seeds: whether comparisons differ in their number of seeds.
    """
    low, high = of.comparison.estimate.interval()
    at = where(of.setting.axes, varying)
    confidence = "" if of.confidence is None else f"labels {of.confidence:.2f} from uniform"
    seeds = counted(len(of.seeds), of.unit) if says_seeds else ""
    conditions = ", ".join(filter(None, (seeds, at, confidence)))
    inside = "; ".join(filter(None, (f"95 % {points(low)} to {points(high)}", conditions)))
    return (
        f"{of.setting.name} is {of.comparison.verdict}, "
        f"{points(of.comparison.estimate.mean)} points ({inside})"
    )


def _of_gap(of_family: Sequence[Answer]) -> str:
    known = [of for of in of_family if of.recovered is not None]
    if not known:
        return "no finished cell has weak model, student and ceiling."
    gaps = [of.recovered for of in known if of.recovered is not None]
    resolved = [gap for gap in gaps if gap.is_resolved and gap.gap > 0.0]
    below = sum(gap.is_resolved and gap.gap < 0.0 for gap in gaps)
    missing = sum(of.missing for of in of_family)
    text = (
        f"the gap between weak model and ceiling is resolved in {len(resolved)} of {len(known)} "
        "settings"
    )
    shares = sorted(gap.value for gap in resolved if gap.value is not None)
    if shares:
        text += f", where students recover {percent(shares[0])} to {percent(shares[-1])} % of it"
    if below:
        text += (
            f"; in {counted(below, 'setting')} the ceiling is below its weak model, and there is "
            "nothing to recover"
        )
    if any(of.one_weak_model for of in known):
        text += "; all seeds share one weak model, so nothing here holds for another"
    if collapsed := [row for of in of_family for row in of.collapsed]:
        text += (
            f"; {counted(len(collapsed), 'student')} collapsed below chance ({named(collapsed)})"
        )
    if missing:
        text += f"; {counted(missing, 'cell')} missing"
    if incomplete := sum(of.incomplete for of in of_family):
        text += f"; {counted(incomplete, 'finished cell')} without weak model or ceiling"
    return text + "."


def _of_choice(rows: Sequence[Row]) -> str:
    students = [row for row in rows if not row["control"]]
    over = chosen_over(students)
    if over:
        chosen = [row for row in students if row["selected"]]
        at_edge = sum(bool(row["selection_at_edge"]) for row in chosen)
        text = rule(students)
        text = text[0].upper() + text[1:] + "."
        if at_edge:
            text += (
                f" {at_edge:,} of {len(chosen):,} choices are at the edge of their grid: a wider "
                "grid may change every sentence above."
            )
        fewer = sum(bool(row["selection_missing"]) for row in shown(students))
        if fewer:
            text += (
                f" {counted(fewer, 'choice')} among fewer cells than others, since some failed or "
                "are not finished: what was chosen there is not comparable."
            )
        return text
    finished = [row for row in students if row["status"] == "done"]
    if finished and all(row["converged"] is not None for row in finished):
        return "An exact solver trained all students: they have no learning rate to choose."
    rates = sorted({row["learning_rate"] for row in students})
    if not rates:
        return "There is no student in this study, only controls."
    if len(rates) == 1:
        return (
            f"All students have one learning rate, {rates[0]:g}: nothing here says how losses "
            "compare at rates chosen for each."
        )
    return (
        f"Learning rates {rates[0]:g} to {rates[-1]:g} are compared each by itself; none was "
        "chosen by a rule."
    )
