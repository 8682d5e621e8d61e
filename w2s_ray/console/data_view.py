"""What was read of a data set: a table of rows, prompts and classes, and what to know of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from w2s_ray.data.class_names import visible
from w2s_ray.data.counting import counted
from w2s_ray.spec.training import Training

COLUMNS = 8  # classes whose shares are columns of the table; of more, they are lines
NAMES = 40  # classes that a line names


def table(name: str, report: Mapping[str, Any]) -> Table:
    """Rows read and used, prompts, and the share of each class, by split.

    Args:
        name: of the data set.
        report: metric of the ``prepare`` step.
    """
    classes: list[str] = report["classes"]
    shown = Table(
        title=Text(f"{name}: what was read"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("")
    subjects = "texts" if classes else "prompts"
    for column in ("rows read", "not usable", "rows used", subjects):
        shown.add_column(column, justify="right")
    shares = classes if len(classes) <= COLUMNS else []
    for label in shares:
        shown.add_column(Text(visible(label)), justify="right")
    origins, splits = report["read"], report["splits"]
    for origin in (name for name in origins if name not in splits):
        of = origins[origin]
        unusable = of["rows"] - of["usable"]
        shown.add_row(origin, f"{of['rows']:,}", f"{unusable:,}", f"{_used(origin, report):,}")
    for split, of in splits.items():
        read = ("", "")
        if split in origins:
            rows, usable = origins[split]["rows"], origins[split]["usable"]
            read = (f"{rows:,}", f"{rows - usable:,}")
        percent = (f"{100 * share:.1f} %" for share in of["label_share"][: len(shares)])
        shown.add_row(split, *read, f"{of['rows']:,}", f"{of['groups']:,}", *percent)
    return shown


def lines(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """What the table does not show, a line each.

    Args:
        name: of the data set.
        report: metric of the ``prepare`` step.
    """
    yield from (f"{name}: {line}" for line in _of_classes(report))
    for origin, of in report["read"].items():
        if unused := of["usable"] - _used(origin, report):
            of_rows = _of_rows(origin, of)
            are = "is" if unused == 1 else "are"
            why = "not used (rows)" if "trained_on" in report else "in no split (sizes)"
            yield f"{name}: {of_rows}: {unused:,} {are} usable but {why}"
        yield from (f"{name}: {line}" for line in _of_origin(origin, of, bool(report["classes"])))
    guessed = sum(of["guessed_groups"] for of in report["splits"].values())
    if guessed:
        used = sum(of["rows"] for of in report["splits"].values())
        yield (
            f"{name}: which rows have one prompt is a guess for {guessed:,} of {used:,} rows: "
            "the file does not say where their prompt, or its first turn, begins and ends; name a "
            "column with the prompt (columns.prompt), or with the group (columns.group)"
        )
    overlap = report["overlap"].get("any", {})
    if overlap.get("prompts"):
        are = "is" if overlap["prompts"] == 1 else "are"
        yield (
            f"{name}: {counted(overlap['prompts'], 'prompt or text', 'prompts or texts')} "
            f"({100 * overlap['share']:.1f} %) {are} in more than one of the given splits"
        )
    yield from (f"{name}: {line}" for line in _of_trained(report))
    for pair, count in report["shared_texts"].items():
        if count:
            first, second = pair.split(", ")
            have = "has" if count == 1 else "have"
            rows = f"{counted(count, 'row')} of {second}"
            yield f"{name}: {rows} {have} a whole text that {first} has too"


def _of_trained(report: Mapping[str, Any]) -> Iterator[str]:
    """A warning of a further test set that holds rows that models are trained on."""
    trained = report.get("trained_on", {})
    if not trained.get("rows"):
        return
    rows = report["splits"]["test"]["rows"]
    parts = (
        f"{split}: {of['rows']:,} in it, {of['texts']:,} with a whole text of it, "
        f"{of['groups']:,} with a prompt of it"
        for split, of in trained.items()
        if isinstance(of, Mapping) and any(of.values())
    )
    are = "is" if trained["rows"] == 1 else "are"
    yield (
        f"warning: {trained['rows']:,} of {counted(rows, 'row')} {are} no fair test: models are "
        f"trained on them, or on rows like them ({'; '.join(parts)})"
    )


def _used(origin: str, report: Mapping[str, Any]) -> int:
    """Rows of the given split, or of the one source, that are in a split."""
    splits = report["splits"]
    return sum(of["rows"] for split, of in splits.items() if origin in (split, "source"))


def _of_rows(origin: str, of: Mapping[str, Any]) -> str:
    return f"of {counted(of['rows'], 'row')} of {origin}"


def _of_classes(report: Mapping[str, Any]) -> Iterator[str]:
    classes: list[str] = report["classes"]
    if classes:
        yield f"{len(classes)} classes, in order: {_names(classes)}"
    if len(classes) > COLUMNS:
        for split, of in report["splits"].items():
            named = zip(map(visible, classes[:NAMES]), of["label_share"], strict=False)
            shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in named)
            yield f"shares in {split}: {shares}{_more(classes)}"
    for names in report["look_alikes"]:
        listed = " and ".join(f"'{name}'" for name in names)
        yield f"classes that look alike but are different ones: {listed}"
    for split, names in report["absent_classes"].items():
        yield f"{split} has no row of {_names(names)}"


def _of_origin(origin: str, of: Mapping[str, Any], has_classes: bool) -> Iterator[str]:
    of_rows = _of_rows(origin, of)
    if reasons := ", ".join(f"{count:,} {reason}" for reason, count in of["unusable"].items()):
        yield f"not usable {of_rows}: {reasons}"
    for note, count in of["notes"].items():
        yield f"{of_rows}: {count:,} {note}"
    if of["duplicates"]:
        yield f"{of_rows}: {of['duplicates']:,} repeat another row of it"
    if of["contradictions"]:
        other = (
            "the same text has another label" if has_classes else "the pair is also turned round"
        )
        yield f"{of_rows}: {of['contradictions']:,} contradict another row ({other})"


def token_line(data: str, model: str, counts: Mapping[str, int], training: Training) -> str:
    """One line on the tokens of a data set as a model reads them.

    Args:
        counts: as of ``running.token_counts``.
    """
    rows = f"{counts['rows']:,} rows"
    if counts["rows"] < counts["of_rows"]:
        rows = f"the first {rows} of {counts['of_rows']:,}"
    line = f"{data}, {model}: {counts['tokens']:,} tokens in {rows}"
    if counts["truncated"]:
        line += f"; {counts['truncated']:,} cut to {training.max_length_tokens:,} tokens"
    if counts["identical"]:
        kept = "no gradient" if training.identical_pairs == "keep" else "left out of training"
        line += (
            f"; {counts['identical']:,} pairs with the same tokens for both answers ({kept}, "
            "scored as ties)"
        )
    return line


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(visible, names[:NAMES])) + _more(names)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - NAMES:,} more" if len(names) > NAMES else ""
