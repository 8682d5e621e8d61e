"""``python -m w2s_ray.report STORE STUDY…``: the reports of finished or unfinished studies."""

from w2s_ray.ending import command

if __name__ == "__main__":
    command.start()  # before the imports below, which take a second

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from w2s_ray.ending.options import OptionParser
from w2s_ray.errors import InputError
from w2s_ray.printable import printable
from w2s_ray.report.joined import joined
from w2s_ray.report.page import Page
from w2s_ray.report.study_page import MARGIN, Choices, study_page
from w2s_ray.report.write import write_report
from w2s_ray.store.artifacts import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    return command.code_of(partial(_run, options))


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="python -m w2s_ray.report",
        description="Write the report of a study from its store; nothing is computed anew.",
    )
    parser.add_argument("store", metavar="STORE", help="folder or URI of the store")
    parser.add_argument(
        "studies", metavar="STUDY", nargs="+", help="names of studies in it; several share a page"
    )
    parser.add_argument(
        "--also",
        metavar=("STORE", "STUDY"),
        nargs=2,
        action="append",
        default=[],
        help="a study of another store, on the same page",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("reports"), help="default: reports"
    )
    parser.add_argument(
        "--baseline", metavar="LOSS", help="to compare with; default: forward_kl or forward_ce"
    )
    parser.add_argument(
        "--margin",
        metavar="POINTS",
        type=float,
        default=100 * MARGIN,
        help="difference in accuracy below which two losses are the same in practice (default 1)",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    if not 0.0 < options.margin < 100.0:
        raise InputError(f"--margin: given {options.margin:g}, expected points from 0 to 100")
    choices = Choices(options.baseline, options.margin / 100.0)
    wanted = [(options.store, study) for study in options.studies]
    wanted += [(store, study) for store, study in options.also]
    pages = _pages(wanted, choices)
    page, name = pages[0], options.studies[0]
    if len(pages) > 1:
        page, name = joined(pages, _command(options)), "joined"
    print(printable(f"report       {write_report(page, options.out / name)}"))
    return 0


def _pages(wanted: Sequence[tuple[str, str]], choices: Choices) -> list[Page]:
    """The pages of several studies, under titles that differ.

    Raises:
        InputError: one study of one store is given twice.
    """
    stores = [Store.open(store) for store, _ in wanted]
    places = [(of.location(""), study) for of, (_, study) in zip(stores, wanted, strict=True)]
    twice = [place for place, count in Counter(places).items() if count > 1]
    if twice:
        raise InputError(f"STUDY: given {twice[0][1]!r} of {twice[0][0]} twice, expected it once")
    named = Counter(study for _, study in wanted)
    pages = []
    for store, (place, study) in zip(stores, places, strict=True):
        page = study_page(store, study, choices)
        if named[study] > 1:
            page = replace(page, title=f"{page.title} of {place.rstrip('/')}")
        pages.append(page)
    return pages


def _command(options: argparse.Namespace) -> str:
    """The command with all of its options, as one line of a shell."""
    words = ["python", "-m", "w2s_ray.report", options.store, *options.studies]
    for store, study in options.also:
        words += ["--also", store, study]
    if options.baseline is not None:
        words += ["--baseline", options.baseline]
    return shlex.join([*words, "--margin", f"{options.margin:g}"])


if __name__ == "__main__":
    command.run(main)
