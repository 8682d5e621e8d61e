"""Which α of contrastive decoding is best, and whether prompts that did not choose it agree."""

from collections.abc import Iterator, Sequence

from w2s_ray.report.page import Axis, Block, Figure, Line, Text
from w2s_ray.report.text_arms import ModelPair
from w2s_ray.report.text_chosen import choose
from w2s_ray.report.text_queries import rates_query
from w2s_ray.report.text_setting import TextSetting
from w2s_ray.statistics.held_out_choice import Choice


def alpha_blocks(pair: ModelPair, files: tuple[str, str]) -> Iterator[Block]:
    """The curve over α and the best one, of each method that has several.

    Where there are several learning rates too, the curve is at the chosen ones, and α and rate are
    chosen together.
    """
    several = [own for own in _by_method(pair.chosen).values() if len(own) > 1]
    if not several:
        return
    yield _curve(pair, several, files)
    of_all = _by_method(pair.settings)
    for settings in several:
        if (sentence := best_alpha(pair, of_all[settings[0].method])) is not None:
            yield Text(sentence)


def _by_method(settings: Sequence[TextSetting]) -> dict[str, list[TextSetting]]:
    found: dict[str, list[TextSetting]] = {}
    for setting in settings:
        if setting.alpha is not None:
            found.setdefault(setting.method, []).append(setting)
    return found


def _curve(
    pair: ModelPair, several: Sequence[Sequence[TextSetting]], files: tuple[str, str]
) -> Figure:
    lines = []
    for settings in several:
        cells = [setting.rate_cell("test") for setting in settings]
        lines.append(
            Line(
                settings[0].method,
                [setting.alpha or 0.0 for setting in settings],
                [cell.value for cell in cells],
                [cell.low for cell in cells],
                [cell.high for cell in cells],
            )
        )
    return Figure(
        f"alpha-{pair.slug}",
        f"{pair.name}: rate by α, on test prompts: an α chosen here is not confirmed by them.",
        "lines",
        Axis("α"),
        Axis("rate", kind="percent"),
        tuple(lines),
        "Rate against α, one line for each method, with 95 % intervals.",
        rates_query(*files),
    )


def best_alpha(pair: ModelPair, settings: Sequence[TextSetting]) -> str | None:
    """A sentence on the best α of one method; None where prompts or seeds are too few.

    The baseline is the pair's own, over the prompts and seeds that all have.
    """
    baseline = pair.baseline
    halves = None if baseline is None else choose(settings, baseline)
    if baseline is None or halves is None:
        return None
    names, choice = [" ".join(setting.variant) for setting in settings], halves.choice
    low, high = choice.held_out.interval()
    numbers = f"{100 * choice.held_out.mean:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"
    return (
        f"{pair.name}, {settings[0].method}: {names[choice.best]} has the highest rate, "
        f"chosen on the test prompts; {_set(names, choice)}. Chosen on one half of the prompts "
        f"and tested on the other ({_listed(names[n] for n in choice.chosen)}), it is "
        f"{numbers}, from {baseline.label}."
    )


def _set(names: Sequence[str], choice: Choice) -> str:
    if len(choice.plausible) == 1:
        return "every other one is worse (95 %)"
    return f"the best one may be {_listed(names[n] for n in choice.plausible)} (95 %)"


def _listed(values: Iterator[str]) -> str:
    *first, last = dict.fromkeys(values)
    return f"{', '.join(first)} or {last}" if first else last
