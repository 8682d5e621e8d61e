"""``python -m w2s_ray.report STORE STUDY…``: the reports of finished or unfinished studies."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from w2s_ray.errors import InputError
from w2s_ray.report.study_page import MARGIN, Choices, study_page
from w2s_ray.report.write import write_report
from w2s_ray.store.artifacts import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m w2s_ray.report",
        description="Write the report of a study from its store; nothing is computed anew.",
    )
    parser.add_argument("store", metavar="STORE", help="folder or URI of the store")
    parser.add_argument("studies", metavar="STUDY", nargs="+", help="names of studies in it")
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
    store = Store.open(options.store)
    choices = Choices(options.baseline, options.margin / 100.0)
    for study in options.studies:
        folder = options.out / study
        written = write_report(study_page(store, study, choices), folder)
        print(f"report       {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
