"""``python -m benchmarks``: measures what docs/benchmarks.md tells, row by row.

Needs nothing but the rows' own sides; the two TRL rows need ``make bench`` to have made TRL's
environment. Run it on a machine that does nothing else.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import heads, inference, training, whole_studies
from benchmarks.machine import facts
from benchmarks.measure import Row
from benchmarks.options import Options
from benchmarks.page import line, save, terminal_table, write_page
from benchmarks.sides import REPOSITORY

ROWS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "tokens": training.tokens_computed,
    "trl": training.trl,
    "long_prompts": training.long_prompts,
    "features": inference.features,
    "gemm": training.gemm,
    "heads": heads.heads_together,
    "scaling": heads.scaling,
    "quickstart": whole_studies.quickstart_cold,
    "second_run": whole_studies.second_run,
}
ASKED_FOR = {"trl_tuning": training.tuning}  # long, and told in words on the page
NEED_TRL = {"trl", "long_prompts", "trl_tuning"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, or 2 for bad input."""
    given = _parser().parse_args(arguments)
    known = {**ROWS, **ASKED_FOR}
    wanted = [name for name in given.rows.split(",") if name] or list(ROWS)
    if odd := [name for name in wanted if name not in known]:
        print(f"--rows: given {odd[0]!r}, expected some of {', '.join(known)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary:
        options = Options(
            scratch=(given.scratch or Path(temporary)).resolve(),
            quick=given.quick,
            rounds=1 if given.quick else given.rounds,
            threads=given.threads or Options.threads_here(),
            trl_python=given.trl_python.absolute(),  # resolved, it would leave its environment
            execution={"micro_batch_tokens": given.micro_batch_tokens}
            if given.micro_batch_tokens
            else {},
        )
        if NEED_TRL & set(wanted) and not options.trl_python.exists():
            print(f"{options.trl_python} is missing; `make bench` makes it", file=sys.stderr)
            return 2
        options.scratch.mkdir(parents=True, exist_ok=True)
        run = {
            "command": _command(given),
            "threads": options.threads,
            "rounds": options.rounds,
            **facts(options.trl_python),
        }
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, 160)
        table = terminal_table()
        for name in wanted:
            for row in known[name](options):
                table.add_row(*line(row))
                console.print(" · ".join(part for part in line(row) if part), markup=False)
                console.print(f"    {row.note}", markup=False, highlight=False)
                if not given.quick:  # kept as they come: a later row may fail
                    save(given.results, {row.name: row}, run)
                    write_page(given.page, given.results)
        console.print(table)
    return 0


def _command(given: argparse.Namespace) -> str:
    """The command as another would give it: without this machine's paths."""
    chosen = {
        "--rows": given.rows,
        "--rounds": given.rounds,
        "--threads": given.threads,
        "--micro-batch-tokens": given.micro_batch_tokens,
    }
    parts = [f"{name} {value}" for name, value in chosen.items() if value]
    return " ".join(["python -m benchmarks", *parts])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows",
        default="",
        metavar="A,B",
        help=f"of {', '.join(ROWS)} (all), {', '.join(ASKED_FOR)}",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="times each pair of sides is measured"
    )
    parser.add_argument("--threads", type=int, help="of torch, on both sides (all cores)")
    parser.add_argument("--micro-batch-tokens", type=int, help="of our training")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing is written")
    parser.add_argument("--scratch", type=Path, help="kept and used again; else a temporary folder")
    docs = REPOSITORY / "docs"
    parser.add_argument("--page", type=Path, default=docs / "benchmarks.md")
    parser.add_argument("--results", type=Path, default=docs / "benchmarks.json")
    parser.add_argument("--trl-python", type=Path, default=Options.trl_python)
    return parser


if __name__ == "__main__":
    sys.exit(main())
