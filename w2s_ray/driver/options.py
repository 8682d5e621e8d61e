"""The options of the command ``w2s``; ``docs/command.md`` explains each."""

import argparse
import os
import sys
from pathlib import Path
from shutil import which
from typing import Any

from w2s_ray.console.lines import Display
from w2s_ray.driver.version import version_line
from w2s_ray.ending.options import OptionParser
from w2s_ray.plan.reruns import add_rerun_options

NO_REPORT = "W2S_RAY_NO_REPORT"
SCRIPT = "w2s"  # the console script of pyproject.toml
SHELLS = ("bash", "zsh", "tcsh")


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = OptionParser(
        prog=" ".join(program()),
        description="Run a weak-to-strong study; run it again to resume.",
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="YAML file of the study")
    _add_what(parser)
    parser.add_argument(
        "--local",
        action="store_true",
        help="run in this process, without Ray (CI, debugging)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a value in place of the spec's, YAML, as grid.seed=[0,1]; may be repeated",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="see in a minute or so whether the spec runs: each kind of step once, on few rows, as "
        "a study of its own",
    )
    parser.add_argument("--store", metavar="URI", help="folder or URI of artifacts and results")
    parser.add_argument(
        "--display",
        type=Display,
        choices=list(Display),
        metavar="{" + ",".join(Display) + "}",
        help="how progress is shown: rich (default on a terminal), plain (default elsewhere), log "
        "(plain, with times), none (failures alone)",
    )
    _add_report_options(parser)
    add_rerun_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions and exit")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=SHELLS,
        help="print a script by which a shell completes w2s, and exit",
    )
    return parser


def program() -> list[str]:
    """The words by which the command is called again; a script that no PATH has, by its path."""
    if Path(sys.argv[0]).name != SCRIPT:
        return ["python", "-m", "w2s_ray.study"]
    return [SCRIPT if which(SCRIPT) else sys.argv[0]]


def command_of(options: argparse.Namespace) -> list[str]:
    """The words that name the same study in the same store, up to an option of what to do."""
    words = [*program(), str(options.spec)]
    words += [word for text in options.set for word in ("--set", text)]
    words += ["--store", options.store] if options.store else []
    return words + [f"--{name}" for name in ("smoke", "local") if getattr(options, name)]


def _add_what(parser: argparse.ArgumentParser) -> None:
    """What is done in place of a run."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="show steps and cost; run nothing")
    what.add_argument("--status", action="store_true", help="show what is finished; run nothing")
    what.add_argument(
        "--watch",
        action="store_true",
        help="follow a run of this study that goes on elsewhere; run nothing",
    )
    what.add_argument(
        "--explain",
        metavar="KEY|CELL",
        help="show all about a step or cell: configuration, inputs, record, error; by its key, the "
        "beginning of one, or its values, as 'reverse_kl seed=2'",
    )


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    report = parser.add_mutually_exclusive_group()
    report.add_argument("--report", action="store_true", help="write the report anew in any case")
    report.add_argument(
        "--no-report",
        action="store_true",
        default=bool(os.environ.get(NO_REPORT)),
        help=f"write the tables alone (also with {NO_REPORT}=1 in the environment)",
    )


class _Version(argparse.Action):
    """Prints the versions, which take a moment to find."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(version_line())
        parser.exit()


class _Completion(argparse.Action):
    """Prints a completion script."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, shell: Any, option: Any = None
    ) -> None:
        try:
            import shtab
        except ImportError:
            parser.error(f"{option} needs the package shtab: pip install 'w2s-ray[completion]'")
        parser.prog = SCRIPT
        for action in parser._actions:
            if action.dest == "spec":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell))
        parser.exit()
