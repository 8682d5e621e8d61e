"""The page of a study of generated text, made from its two tables alone.

Rates are over prompts and seeds; verdicts are those of ``statistics.text_verdicts``, within one
family per pair of models. Everything is of the split ``test`` unless a column says otherwise.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from w2s_ray.report.page import (
    Axis,
    Block,
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
from w2s_ray.report.text_alpha import alpha_blocks
from w2s_ray.report.text_arms import NOT_COMPARED, ModelPair, model_pairs
from w2s_ray.report.text_audit import audit_table
from w2s_ray.report.text_distance import measures
from w2s_ray.report.text_queries import differences_query, rates_query
from w2s_ray.report.text_setting import TextSetting
from w2s_ray.spec.methods import METHODS, TRAINED
from w2s_ray.statistics.text_verdicts import TextComparison, TextVerdict
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import results_file, samples_file
from w2s_ray.store.results import load_cells, read_results
from w2s_ray.store.tables import reading_table
from w2s_ray.store.text_results import text_results_table

PUBLISHED = "weak_sft_published"
PROMPTS_SHOWN = 3
CHARACTERS_SHOWN = 600


def text_page(store: Store, study: str) -> Page:
    """The page of a study.

    Raises:
        InputError: a table was changed since it was written.
        FileNotFoundError: the study was not run yet.
    """
    cells = load_cells(store, study)
    table = text_results_table(store, cells)
    warnings = [] if read_results(store, study).equals(table) else [_EDITED]
    with reading_table(store, samples_file(study)) as file:
        samples = file.read().to_pylist()
    rows = table.to_pylist()
    pairs = model_pairs(rows, samples)
    is_kl = _sampled_plainly(store, rows)
    files = store.location(results_file(study)), store.location(samples_file(study))
    sections = [
        Section("answer", "Answer", (*map(Warning, warnings), *_answers(pairs))),
        Section("rates", "Rates", tuple(_rates(pairs, files))),
        Section("differences", "Differences", tuple(_differences(pairs, files))),
        Section("text", "Length, repetition, distance", tuple(measures(pairs, files, is_kl=is_kl))),
        Section("samples", "Samples", tuple(_samples(pairs, samples))),
        Section("status", "What is missing", tuple(_missing(rows, pairs))),
    ]
    shown = tuple(section for section in sections if section.blocks)
    states = Counter(row["status"] for row in rows)
    counted = ", ".join(f"{count:,} {status}" for status, count in sorted(states.items()))
    return Page(f"Study {study}", f"{len(rows):,} cells ({counted})", shown)


_EDITED = (
    "The file of results is not what the records of its store say: it was edited or damaged, or "
    "the study has gone on since. This page is made from the records; run the study again to write "
    "it anew."
)


def _sampled_plainly(store: Store, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether every answer was drawn from its model's own probabilities."""
    records = store.records(dict.fromkeys(row["samples_key"] for row in rows))
    plain = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
    configs = [record["config"] for record in records.values()]
    return all(config[name] == value for config in configs for name, value in plain.items())


def _answers(pairs: Sequence[ModelPair]) -> list[Block]:
    """A sentence for each comparison with the baseline."""
    blocks: list[Block] = []
    for pair in pairs:
        if pair.baseline is None:
            blocks.append(Text(f"{pair.name}: nothing to compare yet."))
            continue
        blocks.append(Text(_conclusion(pair, pair.baseline)))
    return blocks


def _conclusion(pair: ModelPair, baseline: TextSetting) -> str:
    """What came out better, worse and so on than the baseline, each method with its difference."""
    said: dict[str, list[str]] = {verdict: [] for verdict in get_args(TextVerdict)}
    for setting, of in pair.comparisons:
        said[of.verdict].append(_difference(setting, of))
    listed = [f"{verdict}: {', '.join(names)}" for verdict, names in said.items() if names]
    if pair.not_compared:
        listed.append(f"not compared, without a seed in common: {', '.join(pair.not_compared)}")
    against = f"{baseline.label} ({METHODS[baseline.method]})"
    verdicts = "; ".join(listed) or "Nothing to compare yet"
    return " ".join([f"{pair.name}, against {against}. {verdicts}.", *_rates_of_learning(pair)])


def _rates_of_learning(pair: ModelPair) -> Iterator[str]:
    """At which learning rates the compared methods were trained, and who chose them."""
    several = [of for of in pair.chosen if of.chosen]
    if several:
        listed = "; ".join(f"{of.method}{_alpha(of)} {_factors(pair, of)}" for of in several)
        yield (
            "Learning rates are chosen by the checks on one half of the test prompts and scored on "
            f"the other, as factors on those of the spec: {listed}."
        )
    compared = [of for of in pair.chosen if of.method in TRAINED and of.method not in NOT_COMPARED]
    if any(of.factor is not None for of in compared):
        yield "Too few prompts or seeds to choose: some are at the factor that is nearest to 1."
    if compared and not any(of.chosen or of.factor is not None for of in compared):
        yield "All were trained at one learning rate, and another one may turn the verdicts."


def _alpha(setting: TextSetting) -> str:
    return "" if setting.alpha is None else f" α={setting.alpha:g}"


def _factors(pair: ModelPair, of: TextSetting) -> str:
    """What was chosen, and whether a rate beyond the grid might be better."""
    same = (of.method, of.alpha)
    grid = [each.factor for each in pair.settings if (each.method, each.alpha) == same]
    known = [factor for factor in grid if factor is not None]
    at_edge = {*of.chosen} & {min(known), max(known)}
    chosen = " and ".join(f"×{factor:g}" for factor in dict.fromkeys(of.chosen))
    return chosen + (" (at the edge of the grid)" if at_edge else "")


def _difference(setting: TextSetting, of: TextComparison) -> str:
    low, high = of.difference.interval()
    numbers = f"{100 * of.difference.mean:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"
    seeds = f"{of.seeds} seeds" if of.seeds > 1 else "one seed: for these models and new prompts"
    return f"{setting.label} ({numbers}; {seeds}{f'; {of.reason}' if of.reason else ''})"


def _rates(pairs: Sequence[ModelPair], files: tuple[str, str]) -> list[Block]:
    blocks: list[Block] = []
    for pair in pairs:
        columns = (
            TableColumn("method"),
            TableColumn("rate", "percent"),
            TableColumn("rate, transfer", "percent"),
            TableColumn("PGR", "number", 2),
            TableColumn("seeds", "number", 0),
        )
        rows = tuple(
            (
                Cell(text=setting.label),
                setting.rate_cell("test"),
                setting.rate_cell("transfer"),
                pair.recovered(setting),
                Cell(float(len(setting.seeds))),
            )
            for setting in pair.shown
        )
        notes = (
            "PGR: (rate - weak) / (ceiling - weak), with Fieller's interval; empty where the gap "
            "is not resolved.",
            *(f"{of}: {METHODS[of]}." for of in dict.fromkeys(of.method for of in pair.settings)),
        )
        caption = f"{pair.name}: share of answers that pass their check, 95 % intervals."
        blocks.append(
            Table(f"rates-{pair.slug}", caption, columns, rows, rates_query(*files), notes)
        )
        blocks.append(_bars(pair, files))
        blocks += alpha_blocks(pair, files)
    return blocks


def _bars(pair: ModelPair, files: tuple[str, str]) -> Figure:
    cells = [setting.rate_cell("test") for setting in pair.shown]
    line = Line(
        "rate",
        list(map(float, range(len(cells)))),
        [cell.value for cell in cells],
        [cell.low for cell in cells],
        [cell.high for cell in cells],
    )
    labels = tuple(setting.label for setting in pair.shown)
    return Figure(
        f"rate-{pair.slug}",
        f"{pair.name}: rate of each method, with 95 % intervals.",
        "bars",
        Axis("method", labels=labels),
        Axis("rate", kind="percent"),
        (line,),
        "Bars with intervals, one for each method: the numbers of the table above.",
        rates_query(*files),
    )


def _differences(pairs: Sequence[ModelPair], files: tuple[str, str]) -> list[Block]:
    blocks: list[Block] = []
    columns = (
        TableColumn("method"),
        TableColumn("difference", "points"),
        TableColumn("at equal length", "points"),
        TableColumn("distinct-2, ratio", "number", 2),
        TableColumn("repeated 4-grams", "points"),
        TableColumn("perplexity, ratio", "number", 2),
        TableColumn("verdict"),
    )
    for pair in pairs:
        if pair.baseline is None:
            continue
        rows = tuple(
            (
                Cell(text=setting.label),
                _difference_cell(of),
                Cell()
                if (at_length := of.at_equal_length.estimate) is None
                else Cell(at_length.mean, *at_length.interval()),
                Cell(of.distinct_ratio),
                Cell(of.repeated_difference),
                Cell(of.perplexity_ratio),
                Cell(text=of.verdict),
            )
            for setting, of in pair.comparisons
        )
        left_out = max((of.left_out for _, of in pair.comparisons), default=0)
        notes = [
            "Better: the difference excludes 0 after Holm's correction, also at equal length "
            "(twentieths of both lengths within each family), distinct-2 is at "
            "least 0.9 of the baseline's, repeated 4-grams at most 2 points more, perplexity "
            "(where there is one) at most 1.2 of the baseline's, and an audit (where there is one) "
            "that agrees."
        ]
        if left_out:
            notes.append(f"Up to {left_out:,} prompts without a reward are left out of both sides.")
        caption = f"{pair.name}: difference from {pair.baseline.label}, paired over prompts."
        query = _query(pair, files, pair.baseline.method)
        blocks.append(
            Table(f"differences-{pair.slug}", caption, columns, rows, query, tuple(notes))
        )
        blocks += audit_table(pair)
        blocks += _from_published(pair, files)
    return blocks


def _from_published(pair: ModelPair, files: tuple[str, str]) -> Iterator[Block]:
    """Differences from the baseline as published, in which three changes are mixed."""
    published = next((of for of in pair.chosen if of.method == PUBLISHED), None)
    if published is None or pair.baseline is None:
        return
    fair = {setting.label: of for setting, of in pair.comparisons}
    rows = tuple(
        (
            Cell(text=setting.label),
            _difference_cell(of),
            _difference_cell(fair.get(setting.label)),
        )
        for setting, of in pair.against(published)
    )
    columns = (
        TableColumn("method"),
        TableColumn("from weak_sft_published", "points"),
        TableColumn(f"from {pair.baseline.label}", "points"),
    )
    notes = (
        "weak_sft_published has half of the epochs and no repetition penalty: what a method is "
        "better by than this baseline is not the decoding's alone. No verdict rests on it.",
    )
    caption = f"{pair.name}: differences from the baseline as published, beside those above."
    query = _query(pair, files, PUBLISHED)
    yield Table(f"published-{pair.slug}", caption, columns, rows, query, notes)


def _query(pair: ModelPair, files: tuple[str, str], baseline: str) -> str:
    """The query of differences; none where prompts choose learning rates, which SQL does not."""
    is_plain = not any(setting.chosen for setting in pair.chosen)
    return differences_query(*files, baseline) if is_plain else ""


def _difference_cell(of: TextComparison | None) -> Cell:
    return Cell() if of is None else Cell(of.difference.mean, *of.difference.interval())


def _samples(pairs: Sequence[ModelPair], samples: Sequence[dict[str, Any]]) -> list[Block]:
    """The first sample of a few prompts by every method, side by side."""
    blocks: list[Block] = []
    first = {
        (row["key"], row["prompt_id"]): row for row in reversed(samples) if row["split"] == "test"
    }
    columns = (TableColumn("method"), TableColumn("reward", "number", 2), TableColumn("answer"))
    for pair in pairs:
        own = [row for row in samples if row["split"] == "test" and row["key"] in pair.keys]
        prompts = dict.fromkeys(row["prompt_id"] for row in own)
        for number, prompt_id in enumerate(list(prompts)[:PROMPTS_SHOWN], start=1):
            shown = [(of, first.get((of.keys[0], prompt_id))) for of in pair.settings if of.keys]
            rows = tuple(
                (Cell(text=of.label), Cell(row["reward"]), Cell(text=_shortened(row)))
                for of, row in shown
                if row is not None
            )
            prompt = next(row["prompt"] for _, row in shown if row is not None)
            blocks.append(
                Table(f"samples-{pair.slug}-{number}", f"{pair.name}: {prompt}", columns, rows)
            )
    return blocks


def _shortened(row: dict[str, Any]) -> str:
    if row["text"] is None:
        return f"({row['error']})"
    text = str(row["text"])
    cut = " (cut off)" if row["cut_off"] else ""
    if len(text) > CHARACTERS_SHOWN:
        return f"{text[:CHARACTERS_SHOWN]}… ({len(text):,} characters){cut}"
    return text + cut


def _missing(rows: Sequence[dict[str, Any]], pairs: Sequence[ModelPair]) -> list[Block]:
    blocks: list[Block] = [
        Warning(f"{_name_of(row)}: {row['status']}: {row['error']}")
        for row in rows
        if row["status"] != "done" or row["error"]
    ]
    for row in rows:
        trained, left = row["trained_rows"] or 0, row["left_out_rows"] or 0
        if left > trained:
            blocks.append(
                Warning(
                    f"{_name_of(row)}: trained on {trained:,} rows; {left:,} more were left out: "
                    "answers that were empty or cut off, or pairs of two equal answers."
                )
            )
    for pair in pairs:
        failed = sum(setting.failed_checks for setting in pair.settings)
        if failed:
            blocks.append(Warning(f"{pair.name}: {failed:,} answers have no reward."))
    return blocks


def _name_of(row: dict[str, Any]) -> str:
    alpha = "" if row["alpha"] is None else f" α={row['alpha']:g}"
    factor = row["learning_rate_factor"]
    rate = "" if factor in (None, 1.0) else f" lr×{factor:g}"
    return f"{row['weak']} → {row['strong']}, {row['method']}{alpha}{rate}, seed {row['seed']}"
